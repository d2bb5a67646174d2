// Package pace says how fast one worker may go. A Pace gives each system of a run ("source", and each sink by its name)
// a gate that every request passes, and moves the gates by what the journal, the systems and production say. It keeps
// no state on disk.
//
// # Rates
//
// A rate is for the whole run, in records and bytes a second. Each worker has a token bucket of its own; a request
// passes while its bucket is not overdrawn, and overdraws it by what it carries, so that requests larger than the
// bucket pass and reads can be charged when their answer is there. Four times a second each worker computes its part of
// the rate anew, from the counts in the heartbeats of all workers, without a coordinator:
//
//   - The run may have passed by now: its rate times the time. It has passed: what all workers counted, those that died
//     included; for the time since a worker's last heartbeat its speed is assumed to go on. What is missing is made up
//     for within a second or so, at no more than 1.25 times the rate. An allowance that was not used for half a second
//     expires, so that no burst follows a pause.
//   - The rate is shared out by what each can use (max-min fairness): who uses less leaves it to the others.
//   - A worker whose heartbeat is late counts as dead, and the others take over. So a kill costs the dead worker's
//     share for three quarters of a second where workers beat four times a second, which is made up for: below 5 % over
//     any 10 s.
//
// golang.org/x/time/rate has neither debts nor waiters that notice a new rate, which is why the bucket is our own.
//
// # Adaptive pace
//
// Each worker slows down a system that says it is too much: by errors of class Throttled (Elasticsearch 429, Cassandra
// overloaded), by timeouts, or by answers that take longer than usual. It multiplies the system's speed by 0.7, at most
// once a second and once per request's latency, and adds 2 % of the speed at which it first met resistance for each
// second without such a sign: AIMD, which makes workers that know nothing of each other converge to a fair share (Chiu
// and Jain, "Analysis of the increase and decrease algorithms for congestion avoidance in computer networks", 1989;
// Jacobson, "Congestion avoidance and control", 1988). There is no limit before the first sign, and none any more when
// a minute at the limit has brought no other. A limit that does not bind does not grow.
//
// "Longer than usual" compares the p99 of the last hundred or more requests with its own long-time average, as TCP
// Vegas (Brakmo and Peterson, 1995) and the Gradient2 limit of Netflix's concurrency-limits do with round-trip times;
// beyond twice the usual, and beyond 20 ms, the system is slowed, by this sign never below a fifth. What has become
// usual over minutes is usual: a server that is slow by nature is not slowed for it.
//
// A sink that is slowed slows the whole run: its writer holds back its requests, Write blocks, transforms and reading
// wait for it. The other sinks see less, since one scan feeds all.
//
// # Schedule and probe
//
// A schedule gives a percentage by day and time, a probe a factor by how production fares: over its bound the factor is
// multiplied by 0.7, within it grows by 0.02 a second, and far over it nothing passes. Both multiply the rates. A
// system without a rate gets that part of the speed that it had when it was last free to run; where this is not known,
// of the speed that Little's law gives: requests at once times records of a request, by latency. A rate is exact where
// this is a guess. Each worker asks the probe itself, at jittered times; it begins with a fifth of the full speed. A
// probe that gives no answer for 10 s and five times its interval lets the run go on with at most that fifth: neither
// blindly, nor not at all for a broken dashboard.
//
// # A system that is down
//
// After five failures in a row (Transient or Throttled; what is wrong with single records does not count) a system's
// breaker opens: one request at a time finds out whether it is back, after pauses that double up to 5 s, with full
// jitter; everything else waits at the gate. Its success closes the breaker. So a server that comes back finds the run
// waiting. After Outage without a success, Enter gives the last error.
//
// A retry budget keeps retries from making trouble worse: a failure, which means a retry, costs a token, a success
// earns a fraction of one (as gRPC does it, proposal A6, and Finagle's RetryBudget). A gate knows of no retries, but
// each failed request that it sees comes back. Without tokens a single failure opens the breaker, so that failures come
// one at a time.
package pace
