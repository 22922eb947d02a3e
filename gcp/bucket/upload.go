package bucket

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"runtime"
	"strconv"

	"cloud.google.com/go/storage"
)

const (
	// DefaultParallel is how many parts are sent at a time.
	DefaultParallel = 8
	// fanIn is how many objects one compose call takes.
	fanIn = 32
	// rounds is how often an upload looks again at what there is, when somebody
	// who uploads the same takes its parts away.
	rounds = 8

	identityKey = "bigdisk-identity"
	noteKey     = "bigdisk-note"
	sumKey      = "bigdisk-crc32c"
	sizeKey     = "bigdisk-size"
)

// Content is what an upload sends: bytes in parts, each of which can be made at
// any time, at the same time as others, and again. It must be safe for
// concurrent use.
type Content interface {
	// Identity tells these bytes from others: what they are made of, and how.
	Identity() string
	// Parts is the number of parts, at least 1.
	Parts() int
	// PartSize is how many bytes of the source part i stands for.
	PartSize(i int) int64
	// Part makes part i, in buf if there is room, and a note about it, which is
	// kept with the part: at most 100 bytes of ASCII.
	Part(ctx context.Context, i int, buf []byte) (data []byte, note string, err error)
	// Join makes one note of those of parts in a row.
	Join(notes []string) (string, error)
	// Tail returns what comes after the last part, given the joined note of all
	// parts; it may be empty.
	Tail(note string) ([]byte, error)
}

// UploadOptions say how an object is uploaded. The zero value is a sensible
// default.
type UploadOptions struct {
	// ContentType is the object's; "" is application/octet-stream.
	ContentType string
	// Metadata is noted with the object, besides what the upload notes itself.
	Metadata map[string]string
	// Parallel is how many parts are sent at a time, each of which is in memory;
	// 0 is [DefaultParallel].
	Parallel int
	// Makers is how many parts are made at a time; 0 is the number of CPUs.
	Makers int
	// Progress, if not nil, is called with the number of bytes of the source,
	// beyond those before, whose parts are in the bucket: found there or sent.
	// It must be safe for concurrent use.
	Progress func(n int64)
}

// Uploaded is an object that is in the bucket, whole.
type Uploaded struct {
	Attrs
	// Found says that it was there before.
	Found bool
	// Parts counts its parts, Reused those found from a run before.
	Parts, Reused int
	// Sent is how many bytes were sent.
	Sent int64
}

// Upload makes an object of content, part by part. Parts are sent in parallel
// under names that follow from the object's and the content's identity, each
// with its checksum, and composed, 32 at a time, until there is one object:
// with the checksum that was computed here from those of the parts, and only if
// there is no object of that name. What an earlier run left is used: the object
// itself, or parts of the same identity whose checksum is that noted with them.
// At the end no part is left, whatever content it was for.
//
// Errors wrap [ErrExists] if there is an object with another identity, which is
// left as it is, and [ErrChecksum] if the bucket holds other bytes than sent.
func (c *Client) Upload(ctx context.Context, bucket, object string, content Content, opts UploadOptions) (*Uploaded, error) {
	if content.Parts() < 1 {
		return nil, named(bucket, object, errors.New("nothing to upload"))
	}
	opts.complete()
	u := &upload{
		client: c, bucket: bucket, object: object, content: content, opts: opts,
		identity: content.Identity(), makers: make(chan struct{}, opts.Makers), buffers: make(chan []byte, opts.Parallel),
	}
	for range opts.Parallel {
		u.buffers <- nil
	}
	u.reported.parts = make([]bool, content.Parts())
	var err error
	for range rounds {
		if err = u.run(ctx); !errors.Is(err, errPartsGone) {
			break
		}
	}
	if err != nil {
		return nil, named(bucket, object, err)
	}
	return &u.result, nil
}

func (o *UploadOptions) complete() {
	if o.ContentType == "" {
		o.ContentType = "application/octet-stream"
	}
	if o.Parallel <= 0 {
		o.Parallel = DefaultParallel
	}
	if o.Makers <= 0 {
		o.Makers = runtime.GOMAXPROCS(0)
	}
	if o.Progress == nil {
		o.Progress = func(int64) {}
	}
}

// upload is one object on its way.
type upload struct {
	client         *Client
	bucket, object string
	content        Content
	opts           UploadOptions
	identity       string
	makers         chan struct{}
	buffers        chan []byte
	reported       reported
	result         Uploaded
}

// errPartsGone is wrapped when a part that was there is not any more.
var errPartsGone = errors.New("parts were taken away by another upload of the same image")

// run looks at what there is, and does what is left to do.
func (u *upload) run(ctx context.Context) error {
	u.result = Uploaded{Parts: u.content.Parts()}
	there, err := u.client.Attrs(ctx, u.bucket, u.object)
	switch {
	case err == nil:
		if err := u.same(there); err != nil {
			return err
		}
		u.result.Attrs, u.result.Found = *there, true
		u.reported.all(u)
	case errors.Is(err, ErrNotFound):
		if err := u.make(ctx); err != nil {
			return err
		}
	default:
		return err
	}
	return u.cleanUp(ctx)
}

// make makes the object of its parts.
func (u *upload) make(ctx context.Context) error {
	if u.content.Parts() == 1 {
		return u.makeSmall(ctx)
	}
	t, err := u.newTree(ctx)
	if err != nil {
		return err
	}
	tops, err := t.grow(ctx)
	if err != nil {
		return err
	}
	note, err := u.content.Join(notesOf(tops))
	if err != nil {
		return err
	}
	tail, err := u.content.Tail(note)
	if err != nil {
		return err
	}
	if len(tail) > 0 {
		p, err := u.send(ctx, u.partName("tail"), tail, "")
		if err != nil {
			return err
		}
		tops = append(tops, p)
	}
	whole := joined(u.object, tops, note)
	return u.finish(ctx, whole, func(meta map[string]string) (*Attrs, error) {
		return u.client.compose(ctx, u.bucket, whole.name, tops, u.opts.ContentType, meta)
	})
}

// makeSmall sends an object of one part as it is.
func (u *upload) makeSmall(ctx context.Context) error {
	data, note, err := u.content.Part(ctx, 0, nil)
	if err != nil {
		return fmt.Errorf("part 0: %w", err)
	}
	if note, err = u.content.Join([]string{note}); err != nil {
		return err
	}
	tail, err := u.content.Tail(note)
	if err != nil {
		return err
	}
	data = append(data, tail...)
	err = u.finish(ctx, pieceOf(u.object, data, note), func(meta map[string]string) (*Attrs, error) {
		return u.client.put(ctx, u.bucket, u.object, data, 0, storage.ObjectAttrs{Metadata: meta, ContentType: u.opts.ContentType})
	})
	if err == nil {
		u.result.Sent = int64(len(data))
		u.reported.all(u)
	}
	return err
}

// finish makes the object itself with write.
func (u *upload) finish(ctx context.Context, whole piece, write func(meta map[string]string) (*Attrs, error)) error {
	attrs, err := write(u.metadata(whole, u.opts.Metadata))
	if errors.Is(err, ErrPrecondition) {
		// Somebody was faster: perhaps our own first attempt.
		if attrs, err = u.client.Attrs(ctx, u.bucket, u.object); err == nil {
			err = u.same(attrs)
		}
	}
	if err != nil {
		return err
	}
	if err := u.intact(attrs, whole); err != nil {
		return errors.Join(err, u.client.Delete(ctx, u.bucket, u.object, attrs.Generation))
	}
	u.result.Attrs = *attrs
	return nil
}

// same says whether an object is what this upload would make.
func (u *upload) same(there *Attrs) error {
	switch {
	case there.Metadata[identityKey] != u.identity:
		return fmt.Errorf("%w: it is %s, not %s: delete it, or choose another name", ErrExists, orUnknown(there.Metadata[identityKey]), u.identity)
	case !noted(there):
		return fmt.Errorf("%w: it has %d bytes with CRC32C %08x, but its writer noted %s bytes with %s: delete it",
			ErrChecksum, there.Size, there.CRC32C, there.Metadata[sizeKey], there.Metadata[sumKey])
	}
	return nil
}

func orUnknown(identity string) string {
	if identity == "" {
		return "somebody else's"
	}
	return identity
}

// noted says whether an object has the checksum and size that its writer
// computed.
func noted(a *Attrs) bool {
	return a.Metadata[sumKey] == formatSum(a.CRC32C) && a.Metadata[sizeKey] == strconv.FormatInt(a.Size, 10)
}

func formatSum(sum uint32) string { return fmt.Sprintf("%08x", sum) }

// intact says whether the bucket holds what was computed here.
func (u *upload) intact(a *Attrs, want piece) error {
	if a.CRC32C == want.sum && a.Size == want.size {
		return nil
	}
	return fmt.Errorf("%s: %w: %d bytes with CRC32C %08x instead of %d with %08x", a.Name, ErrChecksum, a.Size, a.CRC32C, want.size, want.sum)
}

// metadata is what is noted with an object or a part.
func (u *upload) metadata(p piece, more map[string]string) map[string]string {
	m := map[string]string{identityKey: u.identity, sumKey: formatSum(p.sum), sizeKey: strconv.FormatInt(p.size, 10)}
	if p.note != "" {
		m[noteKey] = p.note
	}
	for key, value := range more {
		m[key] = value
	}
	return m
}

// PartsPrefix is what the names of an object's parts begin with. Parts are there
// while an upload is, and after one that was killed until the next.
func PartsPrefix(object string) string { return object + ".parts/" }

// partName is the name of a part of this content.
func (u *upload) partName(place string) string {
	digest := sha256.Sum256([]byte(u.identity))
	return fmt.Sprintf("%s%x/%s", PartsPrefix(u.object), digest[:8], place)
}
