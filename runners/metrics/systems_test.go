package metrics

import _ "reprise/runners/systems"
