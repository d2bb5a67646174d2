// Package systems lists the systems that job files can name: each registers itself where it is imported. A team's own
// binary imports this package and its own systems.
package systems

import (
	_ "reprise/io/cassandraio"
	_ "reprise/io/compose"
	_ "reprise/io/corpusio"
	_ "reprise/io/elasticsearchio"
	_ "reprise/io/fileio"
	_ "reprise/io/httpio"
	_ "reprise/io/icebergio"
	_ "reprise/io/kafkaio"
	_ "reprise/pipelines/purge/manifest"
	_ "reprise/pipelines/redrive/letters"
	_ "reprise/pipelines/verify/compare"
)
