"""Licenses that several data sets have."""

from eva_coralbay.tasks.facts import License

CC_BY = License("CC-BY-4.0", "https://creativecommons.org/licenses/by/4.0/")
CC_BY_SA = License("CC-BY-SA-4.0", "https://creativecommons.org/licenses/by-sa/4.0/")
CC_BY_NC = License("CC-BY-NC-4.0", "https://creativecommons.org/licenses/by-nc/4.0/")
CC_BY_NC_SA = License("CC-BY-NC-SA-4.0", "https://creativecommons.org/licenses/by-nc-sa/4.0/")
CC_BY_NC_ND = License("CC-BY-NC-ND-4.0", "https://creativecommons.org/licenses/by-nc-nd/4.0/")
