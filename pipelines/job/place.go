package job

// Keep is the value of earlier_runs that is not the default.
const Keep = "keep"
