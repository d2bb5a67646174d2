// Package usecases proves the nine use cases of pipelines/usecases on real servers: its tests follow the pages, command by command, while a
// writer keeps creating, updating and deleting assets, and compare what other programs then find in the targets with a model of what
// must be there.
package usecases
