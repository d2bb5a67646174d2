package stream

import _ "reprise/runners/systems"
