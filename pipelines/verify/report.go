package verify

import "reprise/pipelines/verify/compare"

// Report is what a verification has found.
type Report struct {
	Run    string                         `json:"run"` // of the first pass, which names the verification
	Job    string                         `json:"job"`
	Read   int64                          `json:"read"`             // rows of the source
	Dead   int64                          `json:"dead,omitempty"`   // rows that failed in a transform: no target has to hold them
	Unread int64                          `json:"unread,omitempty"` // rows that the source could not read: nothing is known of them
	Sinks  map[string]*compare.SinkReport `json:"sinks"`
	Repair string                         `json:"repair,omitempty"` // the job file that writes again what is wrong; "": none is needed
}

// Clean tells whether every target is proven to hold what the job would write, and nothing else.
func (r *Report) Clean() bool {
	if r.Unread > 0 {
		return false
	}
	for _, s := range r.Sinks {
		if s.Mismatches() > 0 || s.InFlight > 0 || s.Unsettled > 0 {
			return false
		}
	}
	return true
}
