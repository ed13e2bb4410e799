"""Many runs of one config: searches of settings, and tables of rows and seeds."""
