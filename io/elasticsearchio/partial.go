package elasticsearchio

// Partial implements connector.Partial: documents are found by their ids, whatever the query says.
func (s *Source) Partial() bool { return len(s.config.Query) > 0 }
