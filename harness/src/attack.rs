//! Attacks: what somebody with the same rights can do to offload files while the engine uses them.
//!
//! They are done by the harness, to the files that it finds below the offload directory; what it left there it also takes
//! away again, before files are judged. Which rights an attack takes from the subject depends on who runs it: root loses none.

use std::fmt;

/// What is done to the subject's offload files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attack {
    /// Every file loses its name.
    Unlink,
    /// Every file gets another name.
    Rename,
    /// Every file is replaced under its name by another of the same length, with other bytes.
    Replace,
    /// Every file is replaced under its name by a copy of itself.
    ReplaceByCopy,
    /// The file that holds a tensor is cut there.
    Cut {
        /// Whose contents.
        at: Place,
    },
    /// One bit of a tensor's contents in its file is turned over.
    Flip {
        /// Which.
        at: Place,
    },
    /// Every file becomes a page longer.
    Grow,
    /// Every directory below the offload directory goes, with all that is in it.
    RemoveDirectories,
    /// Files and directories lose all permissions.
    TakePermissions,
    /// They get them back.
    GivePermissionsBack,
}

/// A place in a tensor's contents, wherever its file has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The model.
    pub model: String,
    /// The tensor.
    pub tensor: String,
    /// Where in it.
    pub spot: Spot,
}

/// Where in a tensor's contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spot {
    /// The first byte.
    First,
    /// The middle, at the start of a page.
    Middle,
    /// The last byte.
    Last,
}

impl fmt::Display for Attack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unlink => f.write_str("unlink"),
            Self::Rename => f.write_str("rename"),
            Self::Replace => f.write_str("replace"),
            Self::ReplaceByCopy => f.write_str("replace by a copy"),
            Self::Cut { at } => write!(f, "cut {at}"),
            Self::Flip { at } => write!(f, "flip {at}"),
            Self::Grow => f.write_str("grow"),
            Self::RemoveDirectories => f.write_str("remove directories"),
            Self::TakePermissions => f.write_str("take permissions"),
            Self::GivePermissionsBack => f.write_str("give permissions back"),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let spot = match self.spot {
            Spot::First => "first",
            Spot::Middle => "middle",
            Spot::Last => "last",
        };
        write!(f, "{}.{} at its {spot} byte", self.model, self.tensor)
    }
}
