//! A tensor on the device, as a visitor sees it.

use crate::{
    Error,
    model::{Dtype, TensorLayout},
    transfer::Staged,
};

/// A tensor that is on the device while its visitor runs.
pub struct DeviceTensor<'a> {
    staged: &'a Staged,
    layout: &'a TensorLayout,
    address: u64,
    workspace_address: u64,
}

impl<'a> DeviceTensor<'a> {
    pub(super) fn new(
        staged: &'a Staged,
        layout: &'a TensorLayout,
        address: u64,
        workspace_address: u64,
    ) -> Self {
        Self {
            staged,
            layout,
            address,
            workspace_address,
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.layout.name
    }

    /// Its element type.
    #[must_use]
    pub fn dtype(&self) -> Dtype {
        self.layout.dtype
    }

    /// Its sizes; empty for a scalar.
    #[must_use]
    pub fn shape(&self) -> &[u64] {
        &self.layout.shape
    }

    /// Its strides in elements; `None` for contiguous.
    #[must_use]
    pub fn strides(&self) -> Option<&[u64]> {
        self.layout.strides.as_deref()
    }

    /// Bytes from its first element to past its last.
    #[must_use]
    pub fn span_bytes(&self) -> u64 {
        self.layout.span_bytes
    }

    /// Device address of its first element; 0 when it has none.
    #[must_use]
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Device address of the workspace that the request asked for; 0 when it asked for none.
    #[must_use]
    pub fn workspace_address(&self) -> u64 {
        self.workspace_address
    }

    /// Copies bytes of its span from the device, from `offset` on.
    ///
    /// # Errors
    /// The range leaves the span, or the copy fails.
    pub fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<(), Error> {
        check_range(self.layout, offset, out.len())?;
        self.staged.read_device(self.address + offset, out)
    }
}

/// Whether `len` bytes from `offset` on are inside the tensor's span.
pub(super) fn check_range(layout: &TensorLayout, offset: u64, len: usize) -> Result<(), Error> {
    if offset
        .checked_add(len as u64)
        .is_some_and(|end| end <= layout.span_bytes)
    {
        return Ok(());
    }
    Err(Error::InvalidArgument(format!(
        "{len} bytes from byte {offset} of tensor {:?} are outside its {} bytes",
        layout.name, layout.span_bytes
    )))
}
