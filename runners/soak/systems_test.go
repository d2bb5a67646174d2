package soak

import _ "reprise/runners/systems"
