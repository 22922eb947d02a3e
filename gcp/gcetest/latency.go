package gcetest

import (
	"math"
	"math/rand/v2"
	"time"
)

// Distribution draws a duration, on the server's clock.
type Distribution func(r *rand.Rand) time.Duration

// Fixed always gives d.
func Fixed(d time.Duration) Distribution {
	return func(*rand.Rand) time.Duration { return d }
}

// Uniform gives anything from low to high.
func Uniform(low, high time.Duration) Distribution {
	return func(r *rand.Rand) time.Duration {
		return low + time.Duration(r.Float64()*float64(high-low))
	}
}

// LogNormal gives half of its values under median and nineteen of twenty under
// p95, with the long tail that services have.
func LogNormal(median, p95 time.Duration) Distribution {
	sigma := math.Log(float64(p95)/float64(median)) / 1.6449 // the normal distribution's 95 % point
	return func(r *rand.Rand) time.Duration {
		return time.Duration(float64(median) * math.Exp(sigma*r.NormFloat64()))
	}
}

// operationTime draws how long an operation of the method takes; s.mu is held.
func (s *Server) operationTime(method string) time.Duration {
	if d, ok := s.opt.MethodLatency[method]; ok {
		return d(s.rand)
	}
	return s.opt.Latency(s.rand)
}
