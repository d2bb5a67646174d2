package job

// Keep is the value of earlier_runs that is not the default.
const Keep = "keep"

// Place names what a target writes to; "": nothing that a later run would write to again.
func (t Target) Place() string {
	switch {
	case t.Cassandra != nil:
		return t.Cassandra.Place()
	case t.Elasticsearch != nil:
		return t.Elasticsearch.Place()
	case t.Iceberg != nil:
		return t.Iceberg.Place()
	case t.Kafka != nil:
		return t.Kafka.Place()
	case t.Files != nil:
		return t.Files.Place()
	}
	return ""
}

// WriteTimes tells whether the versions of records are write times of rows that are read now: those go back when a value is cleared.
func (s Source) WriteTimes() bool {
	switch {
	case s.Cassandra != nil:
		return s.Cassandra.Version == ""
	case s.Keys != nil:
		return s.Keys.Of.WriteTimes()
	case s.Union != nil:
		if !s.Union.deduplicate() {
			return false // several records of a key, of which write times tell the newest
		}
		for _, part := range s.Union.Of {
			if part.WriteTimes() {
				return true
			}
		}
	case s.Join != nil:
		return s.Join.Of.WriteTimes()
	case s.Marked != nil:
		return s.Marked.Of.WriteTimes()
	case s.Deleted != nil:
		return s.Deleted.Of.WriteTimes()
	case s.Letters != nil:
		return s.Letters.Schema == nil && s.Letters.Of.WriteTimes()
	}
	return false
}
