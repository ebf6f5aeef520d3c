//! The seam between the machine's records and a disk.
