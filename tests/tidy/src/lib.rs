//! Rules of the code base that no compiler checks; all of them are tests, none is shipped.

#[cfg(test)]
mod arrows;
#[cfg(test)]
mod files;
