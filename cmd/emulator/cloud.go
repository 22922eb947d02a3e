package main

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"bigdisk/gcp/bucket/buckettest"
	"bigdisk/gcp/fleet"
	"bigdisk/gcp/gcetest"
)

// options are the flags.
type options struct {
	config, storage, labels string
	hosts, sick             int
	mount                   time.Duration
}

// cloud is the emulator at work.
type cloud struct {
	storage *http.Server
	compute *gcetest.Server
	hosts   []*gcetest.Hosts
	serving sync.WaitGroup
}

// start makes the buckets, projects, zones and hosts of a configuration.
func start(opts options) (*cloud, error) {
	config, err := fleet.Load(opts.config)
	if err != nil {
		return nil, err
	}
	at, err := url.Parse(config.ComputeEndpoint)
	if err != nil || at.Scheme != "http" || at.Port() == "" {
		return nil, fmt.Errorf("%s: computeEndpoint %q is not http://HOST:PORT", opts.config, config.ComputeEndpoint)
	}
	labels, err := parseLabels(opts.labels)
	if err != nil {
		return nil, err
	}
	c := new(cloud)
	if err := c.startStorage(config, opts.storage); err != nil {
		return nil, err
	}
	var zones []string
	for _, t := range config.Targets {
		for _, z := range t.Zones {
			zones = append(zones, z.Name)
		}
	}
	c.compute, err = gcetest.Start(gcetest.Options{
		Addr: at.Host, Projects: config.Projects(), Zones: zones, ImageSource: gcetest.EmulatorSource("http://" + opts.storage),
	})
	if err != nil {
		c.storage.Close()
		return nil, err
	}
	if err := c.addHosts(config, opts, labels); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

func (c *cloud) startStorage(config *fleet.Config, addr string) error {
	state, _ := config.StateLocation()
	buckets := []string{config.Bucket, state}
	slices.Sort(buckets)
	handler, err := buckettest.NewHandler(slices.Compact(buckets)...)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("listen for Cloud Storage calls: %w", err)
	}
	c.storage = &http.Server{Handler: handler, ReadHeaderTimeout: 30 * time.Second}
	c.serving.Go(func() {
		if err := c.storage.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			fmt.Fprintf(os.Stderr, "emulator: Cloud Storage: %v\n", err)
		}
	})
	return nil
}

// addHosts puts hosts into every zone. The sick ones are the last of their zone.
func (c *cloud) addHosts(config *fleet.Config, opts options, labels map[string]string) error {
	for _, t := range config.Targets {
		for _, z := range t.Zones {
			sick := func(host, _ string, _ int) gcetest.Behaviour {
				for n := opts.hosts - opts.sick; n < opts.hosts; n++ {
					if host == fmt.Sprintf("host-%s-%d", z.Name, n) {
						return gcetest.Sick
					}
				}
				return gcetest.Healthy
			}
			hosts, err := c.compute.AddHosts(gcetest.HostSpec{
				Project: t.Project, Zones: []string{z.Name}, Count: opts.hosts, Service: config.Service, Labels: labels, Behave: sick,
				Look: gcetest.Uniform(0, opts.mount), Mount: gcetest.Uniform(0, opts.mount),
			})
			if err != nil {
				return err
			}
			c.hosts = append(c.hosts, hosts)
		}
	}
	return nil
}

func parseLabels(text string) (map[string]string, error) {
	labels := map[string]string{}
	for _, label := range strings.Split(text, ",") {
		key, value, ok := strings.Cut(label, "=")
		if !ok || key == "" {
			return nil, fmt.Errorf("--labels: %q is not KEY=VALUE", label)
		}
		labels[key] = value
	}
	return labels, nil
}

// current is the version of every host.
func (c *cloud) current() []string {
	var versions []string
	for _, hosts := range c.hosts {
		for _, version := range hosts.Current() {
			versions = append(versions, version)
		}
	}
	return versions
}

// report says what became of hosts, what was changed, and which of Compute
// Engine's rules were broken, which makes the exit status 1.
func (c *cloud) report() int {
	counts := map[string]int{}
	for _, version := range c.current() {
		if version == "" {
			version = "no version"
		}
		counts[version]++
	}
	for _, version := range slices.Sorted(maps.Keys(counts)) {
		fmt.Fprintf(os.Stderr, "emulator: %d hosts run %s\n", counts[version], version)
	}
	calls := map[string]int{}
	for _, call := range c.compute.Mutations() {
		calls[call.Method]++
	}
	for _, method := range slices.Sorted(maps.Keys(calls)) {
		fmt.Fprintf(os.Stderr, "emulator: %d × %s\n", calls[method], method)
	}
	broken := c.compute.Violations()
	for _, v := range broken {
		fmt.Fprintf(os.Stderr, "emulator: a rule was broken: %s\n", v)
	}
	return min(len(broken), exitFailure)
}

// close ends everything.
func (c *cloud) close() {
	// What they still do does not matter any more.
	_ = c.compute.Close()
	_ = c.storage.Close()
	c.serving.Wait()
}
