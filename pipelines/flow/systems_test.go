package flow

import _ "reprise/runners/systems"
