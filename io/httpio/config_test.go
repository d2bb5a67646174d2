package httpio

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"reprise/io/connector"
	"reprise/io/kafkaio"
	"reprise/transforms/record"
)

// TestValidate changes one thing of valid settings at a time.
func TestValidate(t *testing.T) {
	poll := func() *Completion {
		return &Completion{Poll: &Poll{URL: "http://h/{answer.id}"}, State: "state", Done: []string{"done"},
			Failed: []string{"failed"}}
	}
	for want, change := range map[string]func(c *SinkConfig){
		"":                         func(*SinkConfig) {},
		"url: does not begin":      func(c *SinkConfig) { c.URL = "host/x" },
		"url:  does not begin":     func(c *SinkConfig) { c.URL = "http://{host}/x" },
		"url:   does not begin":    func(c *SinkConfig) { c.URL = "ftp://host/x" },
		"url: a login":             func(c *SinkConfig) { c.URL = "http://me:secret@host/x" },
		"url: an address has no #": func(c *SinkConfig) { c.URL = "http://host/x#y" },
		"url: template":            func(c *SinkConfig) { c.URL = "http://host/{x" },
		"check: does not begin":    func(c *SinkConfig) { c.Check = "/x" },
		"method: GET":              func(c *SinkConfig) { c.Method = "GET" },
		"headers.Authorization:":   func(c *SinkConfig) { c.Headers = map[string]string{"Authorization": "Bearer x"} },
		"headers.Content-Length:":  func(c *SinkConfig) { c.Headers = map[string]string{"Content-Length": "1"} },
		"headers.a b:":             func(c *SinkConfig) { c.Headers = map[string]string{"a b": "1"} },
		"headers.X: template":      func(c *SinkConfig) { c.Headers = map[string]string{"X": "}"} },
		"login.user:":              func(c *SinkConfig) { c.Login = &Login{User: "me"} },
		"login.token:": func(c *SinkConfig) {
			c.Login = &Login{User: "me", Password: "env:P", Token: "env:T"}
		},
		"login.headers.a b:": func(c *SinkConfig) {
			c.Login = &Login{Headers: map[string]connector.Secret{"a b": "env:P"}}
		},
		"idempotency_header:":       func(c *SinkConfig) { c.IdempotencyHeader = "a:b" },
		"exclude:":                  func(c *SinkConfig) { c.Fields, c.Exclude = []string{"a"}, []string{"b"} },
		"answers.40x:":              func(c *SinkConfig) { c.Answers = map[string]Answer{"40x": answerDead} },
		"answers.302:":              func(c *SinkConfig) { c.Answers = map[string]Answer{"302": answerDead} },
		"answers.404: maybe":        func(c *SinkConfig) { c.Answers = map[string]Answer{"404": "maybe"} },
		"completion: exactly":       func(c *SinkConfig) { c.Completion.Poll = nil },
		"completion.state: done":    func(c *SinkConfig) { c.Completion.State = "" },
		"completion.done: name":     func(c *SinkConfig) { c.Completion.Done = nil },
		"completion.failed: name":   func(c *SinkConfig) { c.Completion.Failed = nil },
		"completion.failed: stands": func(c *SinkConfig) { c.Completion.Failed = []string{"DONE"} },
		"completion.poll.url:":      func(c *SinkConfig) { c.Completion.Poll.URL = "x" },
		"completion.topic.kafka.key:": func(c *SinkConfig) {
			c.Completion.Poll, c.Completion.Topic = nil,
				&Topic{Kafka: kafkaio.SourceConfig{Brokers: []string{"h:1"}, Topic: "t",
					Fields: connector.Fields{{Name: "state"}}}}
		},
		"completion.state: no field": func(c *SinkConfig) {
			c.Completion.Poll, c.Completion.Topic = nil,
				&Topic{Kafka: kafkaio.SourceConfig{Brokers: []string{"h:1"}, Topic: "t", Key: []string{"id"},
					Fields: connector.Fields{{Name: "id"}}}}
		},
		"completion.topic.match:": func(c *SinkConfig) {
			c.Completion.Poll, c.Completion.Topic = nil,
				&Topic{Match: "x", Kafka: kafkaio.SourceConfig{Brokers: []string{"h:1"}, Topic: "t",
					Key: []string{"state"}, Fields: connector.Fields{{Name: "state"}}}}
		},
	} {
		c := SinkConfig{URL: "https://host:8080/start/{id}", Completion: poll()}
		change(&c)
		path, text, _ := strings.Cut(want, ":")
		faults := c.Validate()
		if want == "" && len(faults) > 0 || want != "" && !slices.ContainsFunc(faults, func(f connector.Fault) bool {
			return f.Path == path && strings.Contains(f.Message, lastWord(text))
		}) {
			t.Errorf("%q: faults %v", want, faults)
		}
	}

	good := SourceConfig{URL: "https://host/{id}", Key: []string{"id"},
		Fields: connector.Fields{{Name: "id", Type: record.Of(record.Text)}}}
	if faults := good.Validate(); len(faults) > 0 {
		t.Error(faults)
	}
	var paths []string
	for _, f := range (SourceConfig{URL: "https://host/all"}).Validate() {
		paths = append(paths, f.Path)
	}
	if diff := cmp.Diff([]string{"url", "key", "fields"}, paths); diff != "" {
		t.Error(diff)
	}
}

func lastWord(text string) string {
	words := strings.Fields(text)
	if len(words) == 0 {
		return ""
	}
	return words[len(words)-1]
}

// TestMeaning: every status has a meaning, or ends the run.
func TestMeaning(t *testing.T) {
	c := SinkConfig{Answers: map[string]Answer{"500": answerDead, "404": answerUnchanged}}
	for status := 100; status < 600; status++ {
		got := c.meaning(status)
		switch {
		case status == 404 && got != answerUnchanged, status == 500 && got != answerDead,
			status/100 == 2 && got != answerWritten, status == 503 && got != answerRetry, status == 401 && got != "",
			status/100 == 3 && got != "":
			t.Errorf("%d means %q", status, got)
		}
	}
}
