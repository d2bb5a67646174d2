package job

import _ "reprise/runners/systems"
