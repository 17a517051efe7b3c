"""The typed configuration: settings, what identifies them, the scan of methods, the runs that a
command line asks for.
"""
