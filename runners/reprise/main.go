// Command reprise reprocesses data that is already stored; see the README.
package main

import (
	"os"

	"reprise/runners/cli"
	_ "reprise/runners/systems"
)

func main() { os.Exit(cli.Main(os.Args[1:])) }
