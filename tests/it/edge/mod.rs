//! Where Herald meets what stands before it: the path of its URL.

mod path;
