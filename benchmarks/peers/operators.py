"""torchvision on a CPU build of torch: its compiled operators are declared, never run."""

OPERATORS = {
    "nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "roi_align": "(Tensor input, Tensor rois, float spatial_scale, int pooled_height, int pooled_width, "
    "int sampling_ratio, bool aligned) -> Tensor",
    "roi_pool": "(Tensor input, Tensor rois, float spatial_scale, int pooled_height, int pooled_width) "
    "-> (Tensor, Tensor)",
    "ps_roi_align": "(Tensor input, Tensor rois, float spatial_scale, int pooled_height, int pooled_width, "
    "int sampling_ratio) -> (Tensor, Tensor)",
    "ps_roi_pool": "(Tensor input, Tensor rois, float spatial_scale, int pooled_height, int pooled_width) "
    "-> (Tensor, Tensor)",
    "deform_conv2d": "(Tensor input, Tensor weight, Tensor offset, Tensor mask, Tensor bias, int stride_h, "
    "int stride_w, int pad_h, int pad_w, int dil_h, int dil_w, int groups, int offset_groups, bool use_mask) -> Tensor",
}

KEPT: list = []  # a library's operators go when it goes


def declare() -> None:
    import torch

    if KEPT or torch.version.cuda:
        return
    KEPT.append(torch.library.Library("torchvision", "FRAGMENT"))
    for name, schema in OPERATORS.items():
        KEPT[0].define(name + schema)
