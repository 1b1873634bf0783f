//! The daemon killed, paused and cut off: nothing lost, nothing twice.
