// Package httpio triggers a workflow for each record by an HTTP request, and finds rows by their keys in
// services that answer over HTTP.
//
// # The sink: one request for each record
//
// The body is the record's fields, or some of them, as one JSON object. The address and headers are templates.
// Every trigger carries the header Idempotency-Key, a UUID made of the job's name, the purpose, the record's key
// and its version, and of nothing else: no run, attempt, worker or time goes into it. So whatever run, resume or
// redrive of the job triggers the same version of an asset again does it by the same key, and a service that keeps
// to it does the work once. Reprise-Key, Reprise-Version (microseconds since 1970), Reprise-Job and Reprise-Run
// tell where a trigger comes from.
//
// A trigger may be sent more than once: after a connection that broke before the answer came, and after a crash, for
// the records on their way. Where the service knows no idempotency keys, check names an address that is asked first
// whether the workflow is there already.
//
// Records of the same key are triggered one after the other, in the order in which they came; a slow one holds up no
// other key, until under_way and limits.unfinished are reached.
//
// An answer 2xx is written, 409 unchanged, 408, 425, 429 and 5xx are tried again, after what Retry-After asks for (5
// minutes at most), 401 ends the run, and any other 4xx is a dead letter with the beginning of the answer. Redirects
// are followed on the same host alone, and only those that keep the method (307, 308). A record that fails for
// retry_for while others go through is a dead letter; where nothing goes through the service is down, which is the
// gate's matter: the run waits, then pauses, and nothing is lost. A delete triggers nothing and is unchanged.
//
// # Workflows that take long
//
// With completion a record is settled once its workflow has ended: the service is asked again and again (poll), or
// writes to a topic of Kafka (topic). A workflow that fails, or takes longer than timeout, is a dead letter; while the
// service does not answer nothing times out. What has been triggered and not settled is held in memory, under_way of
// each worker and limits.unfinished of the run at most, and nothing else waits for it: pages end in any order. After a
// crash these records are triggered again, by the same key, and waited for again.
//
// A topic is read by each worker from the beginning of the run on. Messages of workflows that it does not wait for are
// passed over; since one that is triggered again after a crash may have ended before, the topic is looked through
// again for those that wait for long.
//
// # The source: one question for each row
//
// A source finds rows by their keys and cannot be read as a whole: it is the table of a join.
package httpio
