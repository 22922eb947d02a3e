package gcetest

import (
	"encoding/json"
	"fmt"
	"net/http"
)

// apiError is a refusal that the client gets at once.
type apiError struct {
	code    int    // HTTP status
	reason  string // errors[].reason, which tells two errors of one status apart
	message string
}

func (e *apiError) Error() string { return fmt.Sprintf("%d %s: %s", e.code, e.reason, e.message) }

// The shape of an error body: {"error":{"code":…,"message":…,"errors":[…]}}.
type errorBody struct {
	Error errorStatus `json:"error"`
}

type errorStatus struct {
	Code    int           `json:"code"`
	Message string        `json:"message"`
	Errors  []errorDetail `json:"errors"`
	Status  string        `json:"status,omitempty"`
}

type errorDetail struct {
	Message string `json:"message"`
	Domain  string `json:"domain"`
	Reason  string `json:"reason"`
}

var statusNames = map[int]string{
	http.StatusBadRequest:          "INVALID_ARGUMENT",
	http.StatusForbidden:           "PERMISSION_DENIED",
	http.StatusNotFound:            "NOT_FOUND",
	http.StatusConflict:            "ALREADY_EXISTS",
	http.StatusPreconditionFailed:  "FAILED_PRECONDITION",
	http.StatusTooManyRequests:     "RESOURCE_EXHAUSTED",
	http.StatusInternalServerError: "INTERNAL",
	http.StatusServiceUnavailable:  "UNAVAILABLE",
	http.StatusGatewayTimeout:      "DEADLINE_EXCEEDED",
}

func (e *apiError) write(w http.ResponseWriter) {
	domain := "global"
	if e.reason == "rateLimitExceeded" {
		domain = "usageLimits"
	}
	body := errorBody{Error: errorStatus{
		Code:    e.code,
		Message: e.message,
		Errors:  []errorDetail{{Message: e.message, Domain: domain, Reason: e.reason}},
		Status:  statusNames[e.code],
	}}
	text, err := json.MarshalIndent(body, "", "  ")
	if err != nil { // strings and numbers only: cannot happen
		text = []byte(`{"error":{"code":500}}`)
	}
	w.Header().Set("Content-Type", "application/json; charset=UTF-8")
	w.WriteHeader(e.code)
	_, _ = w.Write(append(text, '\n')) // a client that has gone is not our concern
}

func errInvalid(field string, value any, why string, args ...any) *apiError {
	return &apiError{http.StatusBadRequest, "invalid",
		fmt.Sprintf("Invalid value for field '%s': '%v'. %s", field, value, fmt.Sprintf(why, args...))}
}

func errBadRequest(format string, args ...any) *apiError {
	return &apiError{http.StatusBadRequest, "badRequest", fmt.Sprintf(format, args...)}
}

func errRequired(field string) *apiError {
	return &apiError{http.StatusBadRequest, "required", fmt.Sprintf("Required field '%s' not specified", field)}
}

func errNotFound(path string) *apiError {
	return &apiError{http.StatusNotFound, "notFound", fmt.Sprintf("The resource '%s' was not found", path)}
}

func errExists(path string) *apiError {
	return &apiError{http.StatusConflict, "alreadyExists", fmt.Sprintf("The resource '%s' already exists", path)}
}

func errNotReady(path string) *apiError {
	return &apiError{http.StatusBadRequest, "resourceNotReady", fmt.Sprintf("The resource '%s' is not ready", path)}
}

func errInUse(path, user string) *apiError {
	return &apiError{http.StatusBadRequest, "resourceInUseByAnotherResource",
		fmt.Sprintf("The resource '%s' is already being used by '%s'", path, user)}
}

// errFingerprint answers a change that was made to a state which is no longer.
func errFingerprint() *apiError {
	return &apiError{http.StatusPreconditionFailed, "conditionNotMet",
		"Labels fingerprint either invalid or resource labels have changed"}
}

// opError is a failure that shows only when the operation is DONE.
type opError struct {
	code     string // error.errors[].code, for example QUOTA_EXCEEDED
	message  string
	status   int  // the HTTP status that it would have been
	noStatus bool // leave httpErrorStatusCode unset, as some services do
}

func opInUse(path, user string) *opError {
	return &opError{code: "RESOURCE_IN_USE_BY_ANOTHER_RESOURCE", status: http.StatusBadRequest,
		message: fmt.Sprintf("The disk resource '%s' is already being used by '%s'", path, user)}
}

func opNotFound(path string) *opError {
	return &opError{code: "RESOURCE_NOT_FOUND", status: http.StatusNotFound,
		message: fmt.Sprintf("The resource '%s' was not found", path)}
}
