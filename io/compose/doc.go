// Package compose makes sources of sources: Keys reads the rows whose keys another source gives, Union several sources
// as one, Join adds fields of other tables to each row. They are sources like any other, and Finders where what they
// are made of is one.
//
// All requests pass the gate of the context. What is asked about a row that has been read already does not count as
// a further record.
package compose
