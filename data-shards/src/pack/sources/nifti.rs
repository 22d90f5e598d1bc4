//! NIfTI-1 volumes, `.nii` and `.nii.gz`, of either byte order.
//!
//! Duty: a volume out of a file that nobody vouches for: no size that it declares is believed before its bytes arrive. Must
//! not: turn, window or resample.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

use crate::pack::geometry::{Affine, cross};

/// Most bytes that the voxels of a volume may take.
pub(crate) const LIMIT: u64 = 1 << 30;
const HEADER: usize = 348;
/// Most bytes between header and voxels: extensions.
const MOST_EXTENSIONS: f32 = 16_777_216.0;

/// Why a volume cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Problem {
    /// The system's fault, or the compression's.
    #[error("cannot read: {0}")]
    Read(#[from] io::Error),
    /// The file's fault.
    #[error("no sound NIfTI file: {0}")]
    Damaged(String),
    /// Nobody's fault.
    #[error("{0}")]
    Unsupported(String),
}

impl Problem {
    pub(crate) fn damaged(problem: impl Into<String>) -> Problem {
        Problem::Damaged(problem.into())
    }
}

/// How a voxel is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
    F32,
    F64,
}

impl Kind {
    fn of(code: i16) -> Option<Kind> {
        Some(match code {
            2 => Kind::U8,
            4 => Kind::I16,
            8 => Kind::I32,
            16 => Kind::F32,
            64 => Kind::F64,
            256 => Kind::I8,
            512 => Kind::U16,
            768 => Kind::U32,
            1024 => Kind::I64,
            1280 => Kind::U64,
            _ => return None,
        })
    }

    fn width(self) -> usize {
        match self {
            Kind::U8 | Kind::I8 => 1,
            Kind::U16 | Kind::I16 => 2,
            Kind::U32 | Kind::I32 | Kind::F32 => 4,
            Kind::U64 | Kind::I64 | Kind::F64 => 8,
        }
    }
}

/// What a file says about its voxels.
#[derive(Clone, Debug)]
pub(crate) struct Header {
    /// Voxels along each axis, at least 1.
    pub(crate) dims: [usize; 3],
    /// From voxels to RAS millimetres.
    pub(crate) affine: Affine,
    kind: Kind,
    big_endian: bool,
    slope: f64,
    intercept: f64,
    offset: u64,
}

/// A volume in memory.
pub(crate) struct Volume {
    pub(crate) header: Header,
    bytes: Vec<u8>,
}

/// Whether the name is that of a NIfTI file.
pub(crate) fn is_nifti(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    name.ends_with(".nii") || name.ends_with(".nii.gz")
}

impl Header {
    pub(crate) fn read(path: &Path) -> Result<Header, Problem> {
        let mut bytes = [0; HEADER];
        open(path)?.read_exact(&mut bytes)?;
        Fields { bytes, big_endian: false }.header()
    }

    /// Bytes of all voxels.
    fn bytes(&self) -> u64 {
        self.dims.iter().fold(self.kind.width() as u64, |bytes, dim| bytes.saturating_mul(*dim as u64))
    }
}

impl Volume {
    pub(crate) fn read(path: &Path) -> Result<Volume, Problem> {
        let mut source = open(path)?;
        let mut header = [0; HEADER];
        source.read_exact(&mut header)?;
        let header = Fields { bytes: header, big_endian: false }.header()?;
        io::copy(&mut (&mut source).take(header.offset - HEADER as u64), &mut io::sink())?;
        let wanted = header.bytes();
        // Grows as the bytes arrive.
        let mut bytes = Vec::new();
        source.take(wanted).read_to_end(&mut bytes)?;
        if bytes.len() as u64 != wanted {
            return Err(Problem::Damaged(format!("it is cut short: {} of {wanted} bytes of voxels", bytes.len())));
        }
        Ok(Volume { header, bytes })
    }

    /// The value of a voxel, scaled as the file says; 0 outside.
    pub(crate) fn value(&self, voxel: [usize; 3]) -> f64 {
        let Header { dims, .. } = self.header;
        if voxel.iter().zip(dims).any(|(at, dim)| *at >= dim) {
            return 0.0;
        }
        self.scaled((voxel[2] * dims[1] + voxel[1]) * dims[0] + voxel[0])
    }

    /// All values, in the order of the file.
    pub(crate) fn values(&self) -> impl Iterator<Item = f64> + '_ {
        (0..self.bytes.len() / self.header.kind.width()).map(|at| self.scaled(at))
    }

    fn scaled(&self, at: usize) -> f64 {
        self.header.slope * self.stored(at) + self.header.intercept
    }

    fn stored(&self, at: usize) -> f64 {
        let Header { kind, big_endian, .. } = self.header;
        let width = kind.width();
        let mut word = [0; 8];
        for (place, byte) in word.iter_mut().zip(self.bytes.get(at * width..(at + 1) * width).unwrap_or_default()) {
            *place = *byte;
        }
        if big_endian && let Some(used) = word.get_mut(..width) {
            used.reverse();
        }
        let [a, b, c, d, ..] = word;
        match kind {
            Kind::U8 => f64::from(a),
            Kind::I8 => f64::from(i8::from_le_bytes([a])),
            Kind::U16 => f64::from(u16::from_le_bytes([a, b])),
            Kind::I16 => f64::from(i16::from_le_bytes([a, b])),
            Kind::U32 => f64::from(u32::from_le_bytes([a, b, c, d])),
            Kind::I32 => f64::from(i32::from_le_bytes([a, b, c, d])),
            Kind::F32 => f64::from(f32::from_le_bytes([a, b, c, d])),
            // Rounded to 53 bits, as no CT value needs more.
            Kind::U64 => u64::from_le_bytes(word) as f64,
            Kind::I64 => i64::from_le_bytes(word) as f64,
            Kind::F64 => f64::from_le_bytes(word),
        }
    }
}

fn open(path: &Path) -> io::Result<Box<dyn Read>> {
    let mut file = File::open(path)?;
    let mut magic = [0; 2];
    let length = file.by_ref().take(2).read(&mut magic)?;
    io::Seek::rewind(&mut file)?;
    let file = BufReader::with_capacity(1 << 17, file);
    if length == 2 && magic == [0x1f, 0x8b] { Ok(Box::new(MultiGzDecoder::new(file))) } else { Ok(Box::new(file)) }
}

/// The header's bytes.
struct Fields {
    bytes: [u8; HEADER],
    big_endian: bool,
}

impl Fields {
    fn header(mut self) -> Result<Header, Problem> {
        self.check_kind()?;
        let code = self.short(70);
        let kind = Kind::of(code)
            .ok_or_else(|| Problem::Unsupported(format!("voxels of data type {code}; expected plain numbers")))?;
        let dims = self.dims()?;
        let offset = self.float(108);
        if !(HEADER as f32..=MOST_EXTENSIONS).contains(&offset) {
            return Err(Problem::Damaged(format!("voxels begin at byte {offset}")));
        }
        let (slope, intercept) = self.scale()?;
        let affine = self.affine();
        if !affine.0.iter().flatten().all(|part| part.is_finite()) {
            return Err(Problem::damaged("its affine holds values that are no numbers"));
        }
        // In 348..=2^24 by the check above.
        let header =
            Header { dims, affine, kind, big_endian: self.big_endian, slope, intercept, offset: offset as u64 };
        match header.bytes() {
            bytes if bytes > LIMIT => {
                Err(Problem::Unsupported(format!("{dims:?} voxels take {bytes} bytes; at most {LIMIT} are allowed")))
            }
            _ => Ok(header),
        }
    }

    /// Finds out the byte order by the header's length, which comes first.
    fn check_kind(&mut self) -> Result<(), Problem> {
        let first = self.take::<4>(0);
        self.big_endian = i32::from_be_bytes(first) == HEADER as i32;
        if [i32::from_le_bytes(first), i32::from_be_bytes(first)].contains(&540) {
            return Err(Problem::Unsupported("a NIfTI-2 file; save it as NIfTI-1".to_owned()));
        }
        if !self.big_endian && i32::from_le_bytes(first) != HEADER as i32 {
            return Err(Problem::damaged("it does not begin with a header's length"));
        }
        match &self.take::<4>(344) {
            b"n+1\0" => Ok(()),
            b"ni1\0" => Err(Problem::Unsupported("a header without voxels; save .hdr and .img as one .nii".to_owned())),
            _ => Err(Problem::damaged("the header does not end as NIfTI's does")),
        }
    }

    /// Three dimensions, or more of which all others are 1.
    fn dims(&self) -> Result<[usize; 3], Problem> {
        let count = self.short(40);
        if !(2..=7).contains(&count) {
            return Err(Problem::Damaged(format!("it has {count} dimensions; expected 3")));
        }
        let dim = |axis: i16| if axis <= count { self.short(40 + 2 * axis as usize) } else { 1 };
        let all: Vec<i16> = (1..=7).map(dim).collect();
        let (space, others) = all.split_at(3);
        if others.iter().any(|dim| *dim > 1) {
            return Err(Problem::Unsupported(format!("{all:?} are several volumes; save each as a file of its own")));
        }
        let mut dims = [0; 3];
        for (place, dim) in dims.iter_mut().zip(space) {
            let sound = usize::try_from(*dim).ok().filter(|dim| *dim > 0);
            *place = sound.ok_or_else(|| Problem::Damaged(format!("its dimensions are {space:?}")))?;
        }
        Ok(dims)
    }

    /// A slope of 0 means that there is none.
    fn scale(&self) -> Result<(f64, f64), Problem> {
        let (slope, intercept) = (f64::from(self.float(112)), f64::from(self.float(116)));
        if slope == 0.0 {
            Ok((1.0, 0.0))
        } else if slope.is_finite() && intercept.is_finite() {
            Ok((slope, intercept))
        } else {
            Err(Problem::Damaged(format!("slope {slope} and intercept {intercept}")))
        }
    }

    fn affine(&self) -> Affine {
        let float = |at: usize| f64::from(self.float(at));
        if self.short(254) > 0 {
            return Affine([280, 296, 312].map(|row| [0, 4, 8, 12].map(|at| float(row + at))));
        }
        let size = [80, 84, 88].map(|at| Some(float(at).abs()).filter(|size| *size > 0.0).unwrap_or(1.0));
        let axis = |axis: usize, way: [f64; 3]| way.map(|part| part * size[axis]);
        if self.short(252) <= 0 {
            return Affine::new(
                [axis(0, [1.0, 0.0, 0.0]), axis(1, [0.0, 1.0, 0.0]), axis(2, [0.0, 0.0, 1.0])],
                [0.0; 3],
            );
        }
        let [x, y] = rotation([256, 260, 264].map(float));
        let hand = if float(76) < 0.0 { -1.0 } else { 1.0 };
        let z = cross(x, y).map(|part| part * hand);
        Affine::new([axis(0, x), axis(1, y), axis(2, z)], [268, 272, 276].map(float))
    }

    fn short(&self, at: usize) -> i16 {
        let bytes = self.take(at);
        if self.big_endian { i16::from_be_bytes(bytes) } else { i16::from_le_bytes(bytes) }
    }

    fn float(&self, at: usize) -> f32 {
        let bytes = self.take(at);
        if self.big_endian { f32::from_be_bytes(bytes) } else { f32::from_le_bytes(bytes) }
    }

    fn take<const N: usize>(&self, at: usize) -> [u8; N] {
        self.bytes.get(at..at + N).and_then(|bytes| bytes.try_into().ok()).unwrap_or([0; N])
    }
}

/// The first two columns of the rotation of a unit quaternion, given without its real part.
fn rotation([b, c, d]: [f64; 3]) -> [[f64; 3]; 2] {
    let a = (1.0 - b * b - c * c - d * d).max(0.0).sqrt();
    [
        [a * a + b * b - c * c - d * d, 2.0 * (b * c + a * d), 2.0 * (b * d - a * c)],
        [2.0 * (b * c - a * d), a * a + c * c - b * b - d * d, 2.0 * (c * d + a * b)],
    ]
}
