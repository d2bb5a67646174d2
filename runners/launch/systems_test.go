package launch_test

import _ "reprise/runners/systems"
