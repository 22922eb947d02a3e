package rawtar

import (
	"context"
	"io"

	"golang.org/x/sync/errgroup"
)

// Write writes the whole archive to w, making up to jobs parts at a time.
func (a *Archive) Write(ctx context.Context, w io.Writer, jobs int) error {
	jobs = max(1, jobs)
	group, ctx := errgroup.WithContext(ctx)
	// A part's buffer is taken in the order of the parts, so that the one that
	// the writer waits for always has one.
	buffers := make(chan []byte, jobs)
	for range jobs {
		buffers <- nil
	}
	made := make(chan chan part, jobs)
	group.Go(func() error {
		defer close(made)
		for i := range a.Parts() {
			var buf []byte
			select {
			case buf = <-buffers:
			case <-ctx.Done():
				return ctx.Err()
			}
			result := make(chan part, 1)
			made <- result // has room for as many as there are buffers
			group.Go(func() (err error) {
				var p part
				p.data, p.note, err = a.Part(ctx, i, buf)
				if err != nil {
					return err
				}
				result <- p
				return nil
			})
		}
		return nil
	})
	group.Go(func() error { return a.drain(ctx, w, made, buffers) })
	return group.Wait()
}

// part is a part that has been made.
type part struct {
	data []byte
	note string
}

// drain writes the parts as they come, and then the tail.
func (a *Archive) drain(ctx context.Context, w io.Writer, made <-chan chan part, buffers chan<- []byte) error {
	var notes []string
	for result := range made {
		var p part
		select {
		case p = <-result:
		case <-ctx.Done():
			return ctx.Err()
		}
		if _, err := w.Write(p.data); err != nil {
			return err
		}
		notes = append(notes, p.note)
		buffers <- p.data
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	note, err := a.Join(notes)
	if err != nil {
		return err
	}
	tail, err := a.Tail(note)
	if err != nil {
		return err
	}
	_, err = w.Write(tail)
	return err
}
