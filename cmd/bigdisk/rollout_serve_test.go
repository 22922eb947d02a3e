package main

import (
	"bufio"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// TestRolloutServe serves a fleet's rollout as a process, to the end of it.
func TestRolloutServe(t *testing.T) {
	y := newRolloutYard(t, 12, nil)
	y.run("start", "--version", "v2")
	cmd := y.bigdisk("rollout", "serve", "--config", y.config, "--listen", "127.0.0.1:0")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill() }() // has ended by then, if all is well
	line, err := bufio.NewReader(stderr).ReadString('\n')
	at, ok := strings.CutPrefix(strings.TrimSpace(line), "bigdisk: serving ")
	if err != nil || !ok {
		t.Fatalf("it says %q: %v", line, err)
	}
	if page := fetch(t, at+"/"); !strings.Contains(page, "<title>Rollout</title>") {
		t.Errorf("the page is %.200s", page)
	}
	if status := fetch(t, at+"/status.json"); !strings.Contains(status, `"deployed":"v2"`) || !strings.Contains(status, `"phase":"done"`) {
		t.Errorf("the status is %s", status)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(fetch(t, at+"/metrics")))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]float64{"bigdisk_rollout_up": 1, "bigdisk_fleet_up": 1, "bigdisk_rollout_paused": 0, "bigdisk_disks": 6, "bigdisk_attachments": 24, "bigdisk_hosts": 12} {
		sum := 0.0
		for _, m := range families[name].GetMetric() {
			sum += m.GetGauge().GetValue()
		}
		if sum != want {
			t.Errorf("%s is %v, want %v", name, sum, want)
		}
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	if err := cmd.Wait(); err != nil {
		t.Errorf("it ends with %v", err)
	}
	for _, args := range [][]string{{"--listen", "nowhere"}, {"--look-interval", "1ms"}} {
		out, err := y.bigdisk(append([]string{"rollout", "serve", "--config", y.config}, args...)...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), "hint: give") {
			t.Errorf("%v: %v, %s", args, err, out)
		}
	}
}

func fetch(t *testing.T, url string) string {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v", url, resp.Status, err)
	}
	return string(body)
}
