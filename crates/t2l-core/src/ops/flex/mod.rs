//! Fused kernels for the flex (CPU) backend, with gradients by hand.
//!
//! Each kernel is a pure function over slices; this file is the bridge between them and tensors. A kernel runs when
//! every operand is an f32 tensor on flex; otherwise it answers `None` and the composed form is used.

pub(super) mod adamw;
mod amx;
pub(super) mod attention;
pub(super) mod bf16;
pub(super) mod gate;
pub(super) mod half_weight;
pub(super) mod linear;
pub(super) mod low_rank;
mod math;
mod matrix;
pub(super) mod nll;
pub(super) mod norm;
pub(super) mod rope;

use std::fmt;
use std::sync::Arc;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Flex};
use burn::tensor::{Bytes, DType, Shape, Tensor};
use burn_flex::{FlexTensor, Layout};

type Tracked = FloatTensor<Autodiff<Flex>>;

/// An operand: its values and, when gradients flow through it, its place in the graph.
pub(super) struct Operand {
    values: FlexTensor,
    tracked: Option<Tracked>,
}

/// Takes a tensor apart if it lives on flex in f32.
pub(super) fn operand<const D: usize>(tensor: &Tensor<D>) -> Option<Operand> {
    if tensor.dtype() == DType::F32 { on_flex(tensor) } else { None }
}

/// The values of a frozen weight on flex in bf16 or f16, contiguous.
fn half_operand<const D: usize>(tensor: &Tensor<D>) -> Option<FlexTensor> {
    let half = matches!(tensor.dtype(), DType::BF16 | DType::F16);
    if half { Some(on_flex(tensor)?.values.to_contiguous()) } else { None }
}

/// Takes a tensor of any type apart if it lives on flex.
fn on_flex<const D: usize>(tensor: &Tensor<D>) -> Option<Operand> {
    if let Ok(values) = tensor.clone().try_into_primitive::<Flex>() {
        return Some(Operand { values, tracked: None });
    }
    let tracked = tensor.clone().try_into_primitive::<Autodiff<Flex>>().ok()?;
    Some(Operand { values: tracked.primitive().clone(), tracked: Some(tracked) })
}

/// The values of a constant operand (weights, tables), contiguous.
pub(super) fn constant<const D: usize>(tensor: &Tensor<D>) -> Option<FlexTensor> {
    Some(operand(tensor)?.values.to_contiguous())
}

/// A contiguous f32 tensor from its values.
fn tensor(values: Vec<f32>, shape: &[usize]) -> FlexTensor {
    FlexTensor::new(Bytes::from_elems(values), Layout::contiguous(Shape::from(shape.to_vec())), DType::F32)
}

/// The values of a contiguous tensor.
fn values(tensor: &FlexTensor) -> &[f32] {
    tensor.as_slice::<f32>().unwrap_or_else(|| unreachable!("operands are made contiguous"))
}

type Gradient<const N: usize> = dyn Fn(FlexTensor, [bool; N]) -> [Option<FlexTensor>; N] + Send + Sync;

/// The backward pass of a kernel with `N` differentiable operands: everything it needs is in the closure.
struct State<const N: usize>(Arc<Gradient<N>>);

impl<const N: usize> Clone for State<N> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<const N: usize> fmt::Debug for State<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("State")
    }
}

#[derive(Debug)]
struct Kernel;

impl<const N: usize> Backward<Flex, N> for Kernel {
    type State = State<N>;

    fn backward(self, ops: Ops<State<N>, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<Flex>(&ops.node);
        let wanted = ops.parents.each_ref().map(Option::is_some);
        let results = (ops.state.0)(grad.to_contiguous(), wanted);
        for (parent, result) in ops.parents.into_iter().zip(results) {
            if let (Some(parent), Some(result)) = (parent, result) {
                grads.register::<Flex>(parent.id, result);
            }
        }
    }
}

/// Wraps a kernel's output: plain when no operand is tracked, else a node whose backward pass is `gradient`.
///
/// `gradient` gets the output's gradient (contiguous) and which operands want one.
fn finish<const N: usize, const D: usize>(
    operands: [Operand; N],
    output: FlexTensor,
    gradient: impl Fn(FlexTensor, [bool; N]) -> [Option<FlexTensor>; N] + Send + Sync + 'static,
) -> Tensor<D> {
    if operands.iter().all(|o| o.tracked.is_none()) {
        return Tensor::from_primitive::<Flex>(output);
    }
    let tracked = operands.map(|o| match o.tracked {
        Some(tracked) => tracked,
        None => <Autodiff<Flex> as burn::backend::AutodiffBackend>::from_inner(o.values),
    });
    let nodes = tracked.each_ref().map(|t| t.node());
    let output = match Kernel
        .prepare::<burn::backend::autodiff::checkpoint::strategy::NoCheckpointing>(nodes)
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(prep) => prep.finish(State(Arc::new(gradient)), output),
        OpsKind::UnTracked(prep) => prep.finish(output),
    };
    Tensor::from_primitive::<Autodiff<Flex>>(output)
}
