//! What is measured: rows, who is in them, and in which order their runs come.

use crate::subject::SubjectCommand;
use spillproof_protocol::TransferPath;
use std::{fmt, str::FromStr};

/// Who is measured.
#[derive(Clone, Debug)]
pub struct Contender {
    /// Its word in names of rows.
    pub name: String,
    /// How it is started.
    pub command: SubjectCommand,
    /// Environment of its own, before what the command line adds.
    pub settings: Vec<(String, String)>,
    /// The ways that its bytes take; where they take another, this machine cannot do what it stands for. Empty where any will do.
    pub paths: Vec<TransferPath>,
    /// Whether it may refuse to store: what it stands for then cannot be done on this machine.
    pub may_refuse: bool,
    /// Whether it may have transparent huge pages; without them the peak of its memory is known exactly.
    pub huge_pages: bool,
    /// Whether it keeps data in RAM where the threshold says so.
    pub keeps_ram: bool,
    /// Whether it works on requests beside each other.
    pub is_concurrent: bool,
    /// Why it cannot be measured here, where that is known without trying.
    pub unavailable: Option<String>,
}

/// What a row measures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Measures {
    /// The raw disk and the bus, with as many bytes as a tensor has.
    Ceiling,
    /// The raw disk in both directions, with as many bytes as a model has.
    MixedCeiling,
    /// One tensor.
    Tensor,
    /// Requests over models that do not fit together, with this threshold.
    Requests(&'static str),
    /// One model goes while another comes.
    Swap,
}

/// Something that is measured several times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// What.
    pub measures: Measures,
    /// Of how many bytes: of the tensor, or of each model.
    pub bytes: u64,
    /// Of whom, by number; nobody for ceilings.
    pub contender: Option<usize>,
    /// `tensor/4GiB/engine`.
    pub name: String,
}

/// Words that choose rows: `tensor`, `tensor/4GiB`, `engine`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(Vec<String>);

impl FromStr for Pattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let words: Vec<String> = text.split('/').map(str::to_owned).collect();
        if words.iter().any(String::is_empty) {
            return Err(format!(
                "{text:?} chooses no row; give words of a row's name, as tensor/4GiB or engine"
            ));
        }
        Ok(Self(words))
    }
}

impl Pattern {
    /// Whether its words stand in the name, one after the other.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        let words: Vec<&str> = name.split('/').collect();
        words.windows(self.0.len()).any(|window| window == self.0)
    }
}

/// Which tables are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// One tensor, and the ceilings of its size.
    Tensor,
    /// Repeated requests.
    Requests,
    /// One model goes while another comes, and the ceiling of that.
    Swap,
}

/// Which loads of a tensor are measured; storing it always is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loads {
    /// From a file that is nowhere but on the disk.
    pub cold: bool,
    /// From a file in the page cache.
    pub warm: bool,
}

/// The sizes of everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Tensors.
    pub tensor_bytes: Vec<u64>,
    /// Each model of the other tables.
    pub model_bytes: u64,
    /// Models of repeated requests.
    pub models: usize,
    /// Requests in a run.
    pub requests: usize,
    /// Device memory for repeated requests.
    pub vram_bytes: u64,
}

/// Every row, in order: a ceiling before those who are compared with it.
#[must_use]
pub fn rows(tables: &[Table], sizes: &Sizes, contenders: &[Contender]) -> Vec<Row> {
    let mut rows = Vec::new();
    let ceiling = |measures, bytes, name| Row {
        measures,
        bytes,
        contender: None,
        name,
    };
    for table in tables {
        match table {
            Table::Tensor => {
                for &bytes in &sizes.tensor_bytes {
                    let size = Size(bytes);
                    rows.push(ceiling(
                        Measures::Ceiling,
                        bytes,
                        format!("tensor/{size}/ceiling"),
                    ));
                    for (index, contender) in contenders.iter().enumerate() {
                        rows.push(Row {
                            measures: Measures::Tensor,
                            bytes,
                            contender: Some(index),
                            name: format!("tensor/{size}/{}", contender.name),
                        });
                    }
                }
            }
            Table::Requests => {
                for threshold in ["0", "512"] {
                    for (index, contender) in contenders.iter().enumerate() {
                        if threshold == "512" || contender.keeps_ram {
                            rows.push(Row {
                                measures: Measures::Requests(threshold),
                                bytes: sizes.model_bytes,
                                contender: Some(index),
                                name: format!("requests/{threshold}/{}", contender.name),
                            });
                        }
                    }
                }
            }
            Table::Swap => {
                let bytes = sizes.model_bytes;
                rows.push(ceiling(
                    Measures::MixedCeiling,
                    bytes,
                    "swap/ceiling".into(),
                ));
                for (index, contender) in contenders.iter().enumerate() {
                    if contender.is_concurrent {
                        rows.push(Row {
                            measures: Measures::Swap,
                            bytes,
                            contender: Some(index),
                            name: format!("swap/{}", contender.name),
                        });
                    }
                }
            }
        }
    }
    rows
}

/// The rows of a run in an order of its own: whatever one leaves behind meets another one in each run.
#[must_use]
pub(super) fn in_run(rows: &[Row], run: u32) -> Vec<Row> {
    let mut rows = rows.to_vec();
    if !rows.is_empty() {
        let shift = (run.saturating_sub(1) as usize) % rows.len();
        rows.rotate_left(shift);
    }
    rows
}

/// A number of bytes in its largest whole unit: `4GiB`.
#[derive(Clone, Copy, Debug)]
pub struct Size(pub u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        let fitting = units
            .iter()
            .find(|(unit, _)| self.0 > 0 && self.0.is_multiple_of(*unit));
        match fitting {
            Some((unit, name)) => write!(f, "{}{name}", self.0 / unit),
            None => write!(f, "{}B", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    //! Names of rows, what chooses them, and their order.
    use super::*;

    fn contender(name: &str, is_ours: bool) -> Contender {
        Contender {
            name: name.into(),
            command: SubjectCommand {
                program: "none".into(),
                args: Vec::new(),
                env: Vec::new(),
            },
            settings: Vec::new(),
            paths: Vec::new(),
            may_refuse: false,
            huge_pages: false,
            keeps_ram: is_ours,
            is_concurrent: is_ours,
            unavailable: None,
        }
    }

    fn names(tables: &[Table]) -> Vec<String> {
        let sizes = Sizes {
            tensor_bytes: vec![4 << 30, 3 << 20],
            model_bytes: 8 << 30,
            models: 2,
            requests: 6,
            vram_bytes: 12 << 30,
        };
        let contenders = [contender("engine", true), contender("torch", false)];
        let rows = rows(tables, &sizes, &contenders);
        rows.into_iter().map(|row| row.name).collect()
    }

    #[test]
    fn rows_are_named_by_table_size_and_contender() {
        assert_eq!(
            names(&[Table::Tensor]),
            [
                "tensor/4GiB/ceiling",
                "tensor/4GiB/engine",
                "tensor/4GiB/torch",
                "tensor/3MiB/ceiling",
                "tensor/3MiB/engine",
                "tensor/3MiB/torch"
            ]
        );
        assert_eq!(
            names(&[Table::Requests, Table::Swap]),
            [
                "requests/0/engine",
                "requests/512/engine",
                "requests/512/torch",
                "swap/ceiling",
                "swap/engine"
            ]
        );
    }

    #[test]
    fn a_pattern_is_words_of_a_name_in_their_order() {
        let matches = |pattern: &str| {
            pattern
                .parse::<Pattern>()
                .unwrap()
                .matches("tensor/4GiB/torch-cpu")
        };
        for pattern in [
            "tensor",
            "4GiB",
            "torch-cpu",
            "tensor/4GiB",
            "4GiB/torch-cpu",
        ] {
            assert!(matches(pattern), "{pattern}");
        }
        for pattern in ["torch", "4Gi", "tensor/torch-cpu", "torch-cpu/4GiB"] {
            assert!(!matches(pattern), "{pattern}");
        }
        assert!("".parse::<Pattern>().is_err() && "a//b".parse::<Pattern>().is_err());
    }

    #[test]
    fn each_run_has_every_row_and_begins_with_another() {
        let rows: Vec<Row> = ["a", "b", "c"]
            .map(|name| Row {
                measures: Measures::Tensor,
                bytes: 1,
                contender: None,
                name: name.into(),
            })
            .into();
        let order = |run| -> String {
            let rows = in_run(&rows, run);
            rows.into_iter().map(|row| row.name).collect()
        };
        assert_eq!(
            [order(1), order(2), order(3), order(4)],
            ["abc", "bca", "cab", "abc"]
        );
        assert!(in_run(&[], 3).is_empty());
    }

    #[test]
    fn sizes_are_written_in_their_largest_whole_unit() {
        for (bytes, text) in [
            (4 << 30, "4GiB"),
            (1536 << 20, "1536MiB"),
            (4096, "4KiB"),
            (5, "5B"),
            (0, "0B"),
        ] {
            assert_eq!(Size(bytes).to_string(), text);
        }
    }
}
