// Package corpusio is a seeded corpus of media assets as a source: tables of any size with everything nasty in them,
// each row made from the seed and its number alone.
//
// Rows lie in buckets of (asset type, month). In the skewed layout one bucket holds half of the rows and some hold
// none. Of the rows about 0.1 % have a payload that is no JSON, 0.5 % are deleted again (a second record, with a later
// version), 1 % expire, 0.01 % are huge (up to 900 kB, so that systems with a limit of 1 MB take them); a row has about
// 400 bytes. Titles and descriptions are of many scripts or empty, columns are null or unset, half of the licences have
// expired, payloads are of three schema versions. A corpus of fewer rows is the beginning of one of more rows.
package corpusio
