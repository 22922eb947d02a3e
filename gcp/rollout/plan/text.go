package plan

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"bigdisk/gcp/rollout/state"
)

func durationText(d state.Duration) string { return time.Duration(d).String() }

// Text writes the plan for people.
func (p *Plan) Text(w io.Writer) error {
	var b strings.Builder
	from := p.Previous
	if from == "" {
		from = "nothing"
	}
	fmt.Fprintf(&b, "rollout of service %s from %s to %s: %d hosts, %d attachments and %d disks to be made\n",
		p.Service, from, p.Version, p.Hosts, p.Attachments, len(p.Disks))
	t := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "\nWAVE\tHOSTS\tBAKE")
	for _, wave := range p.Waves {
		fmt.Fprintf(t, "%s\t%d\t%s\n", wave.Name, wave.Hosts, wave.Bake)
	}
	fmt.Fprintln(t, "\nZONE\tHOSTS\tDISKS\tNEW DISKS\tATTACHMENTS\tAT ONCE")
	for _, z := range p.Zones {
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%d\t%d\n", z.Zone, z.Hosts, z.Disks, z.NewDisks, z.Attachments, z.AtOnce)
	}
	// A strings.Builder takes everything.
	_ = t.Flush()
	for i, text := range p.Blockers {
		if i == 0 {
			fmt.Fprintln(&b, "\nin its way:")
		}
		fmt.Fprintf(&b, "  %s\n", text)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
