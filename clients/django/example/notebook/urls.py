"""Where the pages are."""

from django.conf import settings
from django.contrib import admin
from django.contrib.auth.views import LoginView
from django.urls import include, path

from . import views

urlpatterns = [
    path("", views.home, name="home"),
    path("report/", views.report, name="report"),
    path("report/build/", views.build_report, name="build-report"),
    path("dashboard/", views.dashboard, name="dashboard"),
    path("dashboard/news/", views.news, name="news"),
    path("login/", LoginView.as_view(redirect_authenticated_user=True), name="login"),
    path("logout/", views.leave, name="logout"),
    path("admin/", admin.site.urls),
]
if settings.WITH_PACKAGE:
    urlpatterns.append(path("-/", include("django_session_sidecar.urls")))
