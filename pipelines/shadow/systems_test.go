package shadow

import _ "reprise/runners/systems"
