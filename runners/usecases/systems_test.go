package usecases

import _ "reprise/runners/systems"
