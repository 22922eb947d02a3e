package main

import (
	"errors"
	"os"
	"runtime/metrics"
	"runtime/pprof"
	"time"
)

// startProfiles starts what profiles have a name. What it returns ends them.
func startProfiles(cpu, heap string) (stop func() error, err error) {
	endHeap := func() error { return nil }
	if heap != "" {
		endHeap = watchHeap(heap)
	}
	if cpu == "" {
		return endHeap, nil
	}
	f, err := os.Create(cpu)
	if err == nil {
		err = pprof.StartCPUProfile(f)
	}
	return func() error {
		pprof.StopCPUProfile()
		return errors.Join(f.Close(), endHeap())
	}, err
}

// watchHeap writes a profile of the heap whenever there is a tenth more in it
// than ever before, until what it returns is called.
func watchHeap(name string) (stop func() error) {
	end, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		var most uint64
		var err error
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for err == nil {
			select {
			case <-end:
				ended <- nil
				return
			case <-tick.C:
			}
			if live := liveHeap(); live > most+most/10 {
				most = live
				err = writeHeap(name)
			}
		}
		ended <- err
	}()
	return func() error {
		close(end)
		return <-ended
	}
}

// liveHeap is how many bytes the last collection left.
func liveHeap() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

func writeHeap(name string) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(pprof.Lookup("heap").WriteTo(f, 0), f.Close())
}
