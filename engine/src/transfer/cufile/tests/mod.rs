//! The engine with a libcufile that can be told to answer anything: bytes right, path true, nothing kept, every time.
mod failures;
mod transfers;

use super::*;
use crate::{
    FileIo, Fill, Settings, TmpfsPolicy,
    cuda::{DeviceBuffer, fake::FakeDriver},
    cufile::fake::{FakeCuFile, Fault},
    transfer::file_range::padded_bytes,
};
use tempfile::TempDir;

const PAGE: u64 = 4096;
const MIB: u64 = 1 << 20;
const SLOT: u64 = 256 << 10;

/// A transfer over one file of blocks of `BYTES` each.
struct Fixture {
    // In the order of dropping.
    cufile: CuFile,
    file: Option<Arc<ModelFile>>,
    spill: SpillDirectory,
    context: Arc<Context>,
    staged: Arc<Staged>,
    traffic: Arc<Traffic>,
    _directory: TempDir,
    library: FakeCuFile,
    cuda: FakeDriver,
}

struct Parts {
    spill: SpillDirectory,
    context: Arc<Context>,
    staged: Arc<Staged>,
    traffic: Arc<Traffic>,
    directory: TempDir,
    library: FakeCuFile,
    cuda: FakeDriver,
}

impl Parts {
    fn new() -> Self {
        let cuda = FakeDriver::new(256 * MIB);
        let library = FakeCuFile::new(&cuda);
        let directory = tempfile::tempdir().unwrap();
        let settings = Settings::builder()
            .directory(directory.path())
            .tmpfs(TmpfsPolicy::CountAsRam)
            .build()
            .unwrap();
        let context = cuda.context();
        let traffic = Arc::new(Traffic::default());
        let staged = Staged::new(&context, 2, SLOT, FileIo::Cached, Arc::clone(&traffic)).unwrap();
        Self {
            spill: SpillDirectory::open(&settings).unwrap(),
            context,
            staged: Arc::new(staged),
            traffic,
            directory,
            library,
            cuda,
        }
    }

    fn open(&self, wanted: CuFileUse) -> Result<CuFile, String> {
        let opened = CuFile::open(
            self.library.driver()?,
            &self.context,
            &self.spill,
            &self.staged,
            &self.traffic,
            wanted,
        );
        opened.map_err(|unusable| match unusable {
            Unusable::Here(reason) => reason,
            Unusable::Untried(error) => panic!("{error}"),
        })
    }

    /// Nothing is left of a probe.
    fn assert_clean(&self) {
        assert_eq!(self.cuda.used_bytes(), 0);
        assert_eq!((self.library.handles(), self.library.buffers()), (0, 0));
        let left = std::fs::read_dir(self.spill.path()).unwrap();
        let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["owner.lock"]);
        assert_eq!(self.traffic.written_bytes() + self.traffic.read_bytes(), 0);
        assert_eq!(self.library.violations(), Vec::<String>::new());
    }
}

impl Fixture {
    fn new(wanted: CuFileUse) -> Self {
        Self::with(wanted, |_| {})
    }

    fn with(wanted: CuFileUse, set: impl FnOnce(&FakeCuFile)) -> Self {
        let parts = Parts::new();
        set(&parts.library);
        let cufile = parts.open(wanted).unwrap();
        parts.assert_clean();
        let Parts {
            spill,
            context,
            staged,
            traffic,
            directory,
            library,
            cuda,
        } = parts;
        let mut fixture = Self {
            cufile,
            file: None,
            spill,
            context,
            staged,
            traffic,
            _directory: directory,
            library,
            cuda,
        };
        fixture.next_file(0);
        fixture
    }

    fn next_file(&mut self, number: u64) {
        let name = format!("m{number}-g0.spill");
        let file = self.spill.create(&name, 64 * MIB).unwrap();
        self.file = Some(Arc::new(ModelFile::new(file)));
    }

    fn range(&self, bytes: u64) -> Arc<FileRange> {
        let file = self.file.as_ref().unwrap();
        Arc::new(FileRange::take(file, 0, 2 * PAGE, bytes).unwrap().unwrap())
    }

    fn filled(&self, contents: &[u8]) -> DeviceBuffer {
        let buffer = DeviceBuffer::new(&self.context, contents.len() as u64).unwrap();
        assert!(FakeDriver::poke(buffer.address(), contents));
        buffer
    }

    /// Stores a block and loads it to other memory; bytes and padding are right whatever fails. The paths of both.
    fn round_trip(&self, bytes: u64) -> (TransferPath, TransferPath) {
        let (stored, range, checksums) = self.store(bytes);
        (stored, self.load(bytes, &range, &checksums))
    }

    fn store(&self, bytes: u64) -> (TransferPath, Arc<FileRange>, Checksums) {
        let contents = contents(bytes);
        let source = self.filled(&contents);
        let range = self.range(bytes);
        let stored = self
            .cufile
            .store(span(&source), &range, &Stop::never())
            .unwrap();
        let mut written = vec![0xAA; padded_bytes(bytes) as usize];
        range.read_exact_at(&mut written, 0).unwrap();
        assert!(written[..bytes as usize] == contents, "{bytes} bytes");
        assert!(written[bytes as usize..].iter().all(|byte| *byte == 0));
        (stored.path, range, stored.checksums)
    }

    fn load(&self, bytes: u64, range: &Arc<FileRange>, checksums: &Checksums) -> TransferPath {
        let target = self.filled(&vec![0x55; bytes as usize]);
        let path = self
            .cufile
            .load(range, checksums, span(&target), &Stop::never())
            .unwrap();
        let read = FakeDriver::peek(target.address(), bytes as usize).unwrap();
        assert!(read == contents(bytes), "{bytes} bytes");
        path
    }

    fn notes(&self) -> String {
        self.cufile.notes().join("\n")
    }

    fn finish(self) {
        let Self {
            cufile,
            file,
            spill,
            context,
            staged,
            library,
            cuda,
            ..
        } = self;
        drop((cufile, file));
        assert_eq!((library.handles(), library.buffers()), (0, 0));
        assert_eq!(library.violations(), Vec::<String>::new());
        drop(staged);
        spill.close().unwrap();
        drop(context);
        assert_eq!(cuda.used_bytes(), 0);
        assert_eq!(cuda.violations(), Vec::<String>::new());
    }
}

fn contents(bytes: u64) -> Vec<u8> {
    let mut out = vec![0; bytes as usize];
    Fill::Seed(bytes).write(0, &mut out);
    out
}

fn span(buffer: &DeviceBuffer) -> DeviceSpan {
    DeviceSpan {
        address: buffer.address(),
        bytes: buffer.bytes(),
    }
}

const BY_CUFILE: (TransferPath, TransferPath) = (TransferPath::CuFile, TransferPath::CuFile);
const STAGED: (TransferPath, TransferPath) = (TransferPath::Staged, TransferPath::Staged);
