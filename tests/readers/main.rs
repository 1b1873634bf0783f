//! Other engines over the same lake.
