// Package iotest holds the conformance suites that every source and every sink passes, records to test with, and
// Memory, a system in memory that passes them too.
//
// A system's own test gives the suite its abilities; checks for abilities that it lacks are left out.
package iotest
