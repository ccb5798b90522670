from service.itsm.providers.port import *  # noqa: F403
