package journal

// A run that goes on commits again and again. What belongs to a commit is sealed first, so that the same parts are
// committed again after a crash; once it has happened, its parts are dropped and only counted.

// Seal seals all parts that a sink has brought so far, as its next commit; one that is sealed and has not ended stays
// as it is. The queue of dead letters is the sink "".
type Seal struct {
	Sink string
	Note string // is kept with the commit
}

// CommitEnd tells that a commit has happened. One that has ended already is left as it is.
type CommitEnd struct {
	Sink                string
	Number              int
	Records, Superseded int64 // that it has made visible, and those of them that had lost to newer ones
}

// Commit is what is committed at once.
type Commit struct {
	Number int // of the sink's commits, from 1
	Note   string
	Parts  [][]byte
}

// Committed is what a sink has committed so far.
type Committed struct {
	Commits             int
	Records, Superseded int64
}

// commits is the state of a sink's commits as the stores keep it.
type commits struct {
	Number     int    `json:"number"` // of the last one that was sealed
	Open       bool   `json:"open"`   // it has not ended
	Until      int64  `json:"until"`  // number of the first part behind it
	Note       string `json:"note,omitempty"`
	Records    int64  `json:"records"` // of all that have ended
	Superseded int64  `json:"superseded"`
}

// seal tells whether another commit was sealed.
func (c *commits) seal(note string, until int64) bool {
	if c.Open {
		return false
	}
	c.Number, c.Open, c.Note, c.Until = c.Number+1, true, note, until
	return true
}

// end tells whether the commit has ended by this.
func (c *commits) end(e CommitEnd) bool {
	if !c.Open || c.Number != e.Number {
		return false
	}
	c.Open, c.Note = false, ""
	c.Records, c.Superseded = c.Records+e.Records, c.Superseded+e.Superseded
	return true
}

func (c commits) ended() Committed {
	n := c.Number
	if c.Open {
		n--
	}
	return Committed{Commits: n, Records: c.Records, Superseded: c.Superseded}
}
