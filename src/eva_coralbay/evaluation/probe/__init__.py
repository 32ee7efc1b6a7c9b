"""Probes: what an encoder's features hold, read out by a linear classifier in closed form.

Nothing is imported here. The dense probe of segmentations needs torch and numpy only:

    interpolation   feature maps of any resolution at single voxels, and logits on all voxels
    windows         which window a voxel of a scan belongs to
    sums            the features of drawn voxels of a case and their sums
    classifier      the classifier of the sums of any set of cases, and its strength
    subsets         the labeled cases of each point of a label-efficiency curve
    saved           the classifier of all training cases in a file
    scans           both passes over scans: the sums of training cases, the labels of others

The probe of classifications has scikit-learn's classifiers of embeddings:

    embedding_classifiers   logistic regression and nearest neighbors, and the strength of the first
    curve_classification    what they predict with all labeled cases and with few of them
"""
