package gcetest

import (
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// checkEnums refuses values that the API's schema does not list. The generated
// messages keep enums as strings, and list the values of a field such as
// access_mode in an enum AccessMode of the same message.
func checkEnums(path string, m protoreflect.Message) (err error) {
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		at := path + "." + f.JSONName()
		switch {
		case f.IsMap():
			return true
		case f.IsList():
			for i := range v.List().Len() {
				if err = checkEnum(at, f, v.List().Get(i)); err != nil {
					return false
				}
			}
		default:
			err = checkEnum(at, f, v)
		}
		return err == nil
	})
	return err
}

func checkEnum(path string, f protoreflect.FieldDescriptor, v protoreflect.Value) error {
	if f.Kind() == protoreflect.MessageKind {
		return checkEnums(path, v.Message())
	}
	if f.Kind() != protoreflect.StringKind {
		return nil
	}
	enum := f.ContainingMessage().Enums().ByName(enumName(f.Name()))
	if enum == nil {
		return nil
	}
	// Number 0 is the generator's own placeholder.
	if value := enum.Values().ByName(protoreflect.Name(v.String())); value == nil || value.Number() == 0 {
		return errInvalid(path, v.String(), "'%s' is not one of the values that the field takes.", v.String())
	}
	return nil
}

// enumName turns access_mode into AccessMode.
func enumName(field protoreflect.Name) protoreflect.Name {
	var b strings.Builder
	for part := range strings.SplitSeq(string(field), "_") {
		if part != "" {
			b.WriteString(strings.ToUpper(part[:1]) + part[1:])
		}
	}
	return protoreflect.Name(b.String())
}
