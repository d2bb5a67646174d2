// Package plan tells where to cut the partitions and the token ring of a Cassandra table into splits, and
// how rows stand in them. Its functions are pure: who calls them asks the server, and gives what came back
// as positions, tokens and sizes.
//
// A partition is cut by its keys (Cut), which needs positions: keys as bytes that sort as Cassandra sorts the rows
// (Order). The ring is cut by tokens (Ring), which stand for keys by Murmur3Partitioner (Token); RandomPartitioner and
// ByteOrderedPartitioner have other tokens and are not read by ranges. Sizes are estimates from samples (EstimateRows).
package plan
