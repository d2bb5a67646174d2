package outage

import _ "reprise/runners/systems"
