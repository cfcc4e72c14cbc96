//! `.pt` files made to harm: cut, lying, growing, calling. All of them end as errors that name the file.

use t2l_hypernet::import::ImportError;
use t2l_hypernet::{Arch, import};
use tempfile::TempDir;
use zip::CompressionMethod;

use super::pt::{self, Pickle, State, archive, strides};
use super::small::{adapter, args, published};
use crate::support::{device, small};

fn state() -> State {
    published(small(Arch::L)).1
}

fn import_bytes(bytes: &[u8]) -> Result<(), ImportError> {
    let folder = TempDir::new().expect("a folder");
    // No list of modules, so that only the `.pt` can be at fault.
    let adapter = serde_json::json!({ "base_model_name_or_path": "tiny", "r": 2, "lora_alpha": 8 });
    pt::folder(folder.path(), bytes, &args(&small(Arch::L)), &adapter);
    import::sakana(folder.path(), None, &device()).map(drop)
}

fn refused(bytes: &[u8]) -> String {
    let message = import_bytes(bytes).expect_err("refused").to_string();
    assert!(message.contains("hypermod.pt"), "{message}");
    message
}

fn stored(pickle: &[u8]) -> Vec<u8> {
    archive(pickle, &state().storages(), CompressionMethod::Stored)
}

#[test]
fn every_cut_is_an_error() {
    let bytes = state().bytes(b"");
    assert!(import_bytes(&bytes).is_ok());
    for end in (0..bytes.len()).step_by(97).chain(bytes.len() - 30..bytes.len()) {
        refused(&bytes[..end]);
    }
    let pickle = state().pickle(b"");
    for end in (0..pickle.len()).step_by(61) {
        refused(&stored(&pickle[..end]));
    }
}

#[test]
fn flipped_bits_never_panic() {
    let bytes = state().bytes(b"");
    // The pickle lies in front, the directory at the end.
    let places = (0..6000).step_by(7).chain((bytes.len() - 4000..bytes.len()).step_by(3));
    for (i, at) in places.enumerate() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (i % 8);
        let _ = import_bytes(&flipped);
    }
}

#[test]
fn calls_are_refused_by_name_and_never_made() {
    let folder = TempDir::new().expect("a folder");
    let victim = folder.path().join("victim");
    let call = |module: &str, name: &str| {
        let mut call = Pickle::default();
        call.raw(format!("c{module}\n{name}\n").as_bytes());
        call.text(&format!("touch {}", victim.display())).raw(b"\x85R");
        call.0
    };
    for (module, name) in [("os", "system"), ("posix", "system"), ("builtins", "exec"), ("subprocess", "Popen")] {
        let call = call(module, name);
        // As an item, as state of the dictionary, as the whole file.
        let mut item = Pickle::default();
        item.text("zzz").raw(&call).raw(b"s");
        let pickles = [
            state().pickle(&item.0),
            state().pickle(&[&call[..], b"b"].concat()),
            [&b"\x80\x02"[..], &call, b"."].concat(),
        ];
        for pickle in pickles {
            let message = refused(&stored(&pickle));
            assert!(message.contains(&format!("{module}.{name}")), "{message}");
        }
    }
    assert!(!victim.exists());
    // By the other ways that pickles have.
    for other in
        [&b"(X\x02\x00\x00\x00idios\nsystem\n."[..], b"\x8c\x02os\x8c\x06system\x93\x8c\x02id\x85R.", b"\x82\x01."]
    {
        refused(&stored(&[&b"\x80\x02"[..], other].concat()));
    }
}

#[test]
fn compressed_and_lying_entries_are_refused() {
    let bomb = vec![(String::from("hypermod/data/0"), vec![0; 64 << 20])];
    let bytes = archive(&state().pickle(b""), &bomb, CompressionMethod::Deflated);
    assert!(bytes.len() < 1 << 20);
    assert!(refused(&bytes).contains("compressed"));

    // Sizes in the directory that the file does not have.
    let bytes = state().bytes(b"");
    let directory = bytes.windows(4).position(|w| w == b"PK\x01\x02").expect("a directory");
    for size in [u32::MAX - 1, u32::MAX, 1 << 30] {
        let mut lying = bytes.clone();
        for at in [20, 24] {
            lying[directory + at..directory + at + 4].copy_from_slice(&size.to_le_bytes());
        }
        refused(&lying);
    }
    // More entries than there are.
    let mut lying = bytes.clone();
    let end = bytes.len() - 22;
    lying[end + 8..end + 12].copy_from_slice(&[0xff; 4]);
    refused(&lying);
    // Two pickles, and one too long.
    let two = vec![("other/data.pkl".to_owned(), state().pickle(b""))];
    assert!(refused(&archive(&state().pickle(b""), &two, CompressionMethod::Stored)).contains("data.pkl"));
    let long = [&b"\x80\x02"[..], &vec![b'N'; 2 << 20], b"."].concat();
    assert!(refused(&stored(&long)).contains("data.pkl"));
    // Other containers of older PyTorch, and what is no container.
    for other in [&b"\x80\x02}."[..], b"", b"PK\x05\x06", b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."] {
        refused(other);
    }
}

#[test]
fn shapes_without_values_are_refused() {
    let head = "heads.q_proj.weight";
    let with = |shape: &[usize], strides: &[usize], declared: usize| {
        let mut pickle = Pickle::default();
        pickle.raw(b"\x80\x02}(").text(head).tensor("0", "FloatStorage", declared, shape, strides).raw(b"u.");
        stored(&pickle.0)
    };
    let most = i32::MAX as usize;
    for shape in
        [vec![1 << 62, 1 << 62], vec![most, most], vec![most], vec![usize::MAX >> 1, 1], vec![1 << 62, 1 << 62, 0]]
    {
        for declared in [1, most] {
            refused(&with(&shape, &strides(&[1, 1, 1][..shape.len()]), declared));
            // A view that repeats one value.
            refused(&with(&shape, &vec![0; shape.len()], declared));
        }
    }
    let million = vec![1 << 28];
    assert!(refused(&with(&million, &[0], 1)).contains("larger than their file"));
    // Many tensors that share one storage.
    let mut pickle = Pickle::default();
    pickle.raw(b"\x80\x02}(");
    for i in 0..2000 {
        pickle.text(&format!("t{i}")).tensor("0", "FloatStorage", 36, &[1000], &[0]);
    }
    pickle.raw(b"u.");
    assert!(refused(&stored(&pickle.0)).contains("larger than their file"));
}

#[test]
fn deep_and_doubling_pickles_end() {
    let deep = [&b"\x80\x02"[..], &b"]".repeat(500_000)[..], &b"a".repeat(499_999)[..], b"."].concat();
    refused(&stored(&deep));
    // Each list holds the last one twice.
    let mut doubling = b"\x80\x02]q\x00".to_vec();
    for i in 0..100u8 {
        doubling.extend([b']', b'q', i + 1, b'(', b'h', i, b'h', i, b'e']);
    }
    doubling.push(b'.');
    refused(&stored(&doubling));
    let itself = b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s.";
    refused(&stored(itself));
}

#[test]
fn missing_files_are_named() {
    let folder = TempDir::new().expect("a folder");
    let message = |folder: &std::path::Path| import::sakana(folder, None, &device()).expect_err("missing").to_string();
    assert!(message(&folder.path().join("nowhere")).contains("args.yaml"));
    for name in ["args.yaml", "adapter_config.json", "hypermod.pt"] {
        pt::folder(folder.path(), &state().bytes(b""), &args(&small(Arch::L)), &adapter());
        std::fs::remove_file(folder.path().join(name)).expect("removed");
        assert!(message(folder.path()).contains(name));
        std::fs::create_dir(folder.path().join(name)).expect("a folder in its place");
        assert!(message(folder.path()).contains(name));
        std::fs::remove_dir(folder.path().join(name)).expect("removed");
    }
    // Sparse files of a terabyte.
    for name in ["args.yaml", "adapter_config.json", "hypermod.pt"] {
        pt::folder(folder.path(), &state().bytes(b""), &args(&small(Arch::L)), &adapter());
        let file = std::fs::File::create(folder.path().join(name)).expect("file");
        file.set_len(1 << 40).expect("a sparse file");
        assert!(message(folder.path()).contains(name));
    }
}
